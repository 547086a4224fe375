// Rows of numbers on their way into a matrix, stored as it takes them.
#pragma once

#include <cstdint>

#include "barkfast/kernels.h"
#include "barkfast/matrix.h"
#include "buffer.h"

namespace barkfast {

// How many rows at once are stored for a matrix of this format.
inline InputType many_input(Format format, const Kernels& kernels) { return kernels.many_inputs[int(format)]; }

class InputRows {
  public:
    InputRows() = default;
    // Room for `rows` rows of up to `cols` numbers, of a type that takes no more memory than `widest`.
    InputRows(int64_t rows, int64_t cols, InputType widest);

    // Store `cols` numbers as row `row`, from column `first` on; a multiple of kGroup.
    void set(const Kernels& kernels, InputType type, int64_t row, int64_t cols, const float* x,
             int64_t first = 0) const;

    // The rows from `row` on, all stored as `type`.
    Input from(InputType type, int64_t row) const;

  private:
    int64_t stride_ = 0;
    int64_t group_stride_ = 0;
    Buffer<uint8_t> data_;
    Buffer<float> scales_;
    Buffer<int32_t> sums_;
};

}  // namespace barkfast
