// Inputs of products of a few rows: rows of floats, with a quantized copy for quantized weights.
#pragma once

#include <cstdint>

#include "barkfast/network.h"
#include "buffer.h"
#include "input_rows.h"

namespace barkfast {

class Activations {
  public:
    // Allocates `rows` rows of `cols` numbers.
    Activations(int64_t rows, int64_t cols)
        : cols_(cols),
          stride_(round_up(cols, kGroup)),
          data_(rows * stride_),
          quantized_(rows, cols, InputType::int8) {}

    float* row(int64_t i) const { return data_.data() + i * stride_; }
    // Floats from one row to the next; zeros beyond the columns.
    int64_t stride() const { return stride_; }

    // Row i is complete: quantize it if the matrix that it is multiplied with has a quantized format.
    void finish(const Kernels& kernels, Format format, int64_t i) const {
        if (is_quantized(format)) quantized_.set(kernels, InputType::int8, i, cols_, row(i));
    }

    // The rows from i on, as inputs of a matrix of this format.
    Input from(Format format, int64_t i) const {
        if (decode_input(format) == InputType::int8) return quantized_.from(InputType::int8, i);
        Input input;
        input.data = row(i);
        input.stride = stride_ * int64_t(sizeof(float));
        return input;
    }

  private:
    int64_t cols_;
    int64_t stride_;
    Buffer<float> data_;
    InputRows quantized_;
};

}  // namespace barkfast
