// Input rows of a matrix, stored in the type that the product takes.
#pragma once

#include <cstdint>

#include "barkfast/kernels.h"
#include "barkfast/matrix.h"
#include "buffer.h"

namespace barkfast {

// Input type of a product of many rows with a matrix of this format.
inline InputType many_input(Format format, const Kernels& kernels) { return kernels.many_inputs[int(format)]; }

class InputRows {
  public:
    InputRows() = default;
    // Allocates `rows` rows of up to `cols` numbers, of any type that is not wider than `widest`.
    InputRows(int64_t rows, int64_t cols, InputType widest);

    // Store `cols` numbers in row `row`, from column `first` on; `first` is a multiple of kGroup.
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
