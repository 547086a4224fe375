#include "input_rows.h"

#include <cstring>

namespace barkfast {

InputRows::InputRows(int64_t rows, int64_t cols, InputType widest)
    // One cache line more than needed: rows a power of two apart would all map to the same few cache sets.
    : stride_(input_bytes(widest, cols) + 64),
      group_stride_(ceil_div(cols, kGroup)),
      data_(rows * stride_),
      scales_(rows * group_stride_),
      sums_(rows * group_stride_) {}

void InputRows::set(const Kernels& kernels, InputType type, int64_t row, int64_t cols, const float* x,
                    int64_t first) const {
    uint8_t* to = data_.data() + row * stride_;
    if (type == InputType::int8) {
        const int64_t group = row * group_stride_ + first / kGroup;
        kernels.quantize(x, cols, reinterpret_cast<int8_t*>(to) + first, &scales_[group], &sums_[group]);
    } else if (type == InputType::bf16) {
        kernels.to_bf16(x, cols, reinterpret_cast<uint16_t*>(to) + first);
    } else {
        to += first * 4;
        std::memcpy(to, x, size_t(cols) * sizeof(float));
        std::memset(to + cols * 4, 0, size_t(round_up(cols, kGroup) - cols) * sizeof(float));
    }
}

Input InputRows::from(InputType type, int64_t row) const {
    const int64_t group = row * group_stride_;
    const bool quantized = type == InputType::int8;
    return {type,
            data_.data() + row * stride_,
            stride_,
            quantized ? &scales_[group] : nullptr,
            quantized ? &sums_[group] : nullptr,
            group_stride_};
}

}  // namespace barkfast
