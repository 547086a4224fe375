// From a checkpoint's numbers to the panels of matrix.h, and to the tables and vectors beside them.
#pragma once

#include <cstdint>

#include "barkfast/matrix.h"

namespace barkfast {

// How a checkpoint stores its numbers.
enum class SourceType : int { f32 = 0, bf16 = 1, f16 = 2 };

constexpr int64_t source_bytes(SourceType type) { return type == SourceType::f32 ? 4 : 2; }

// Where numbers come from: (rows, cols), row after row, at any address.
struct Source {
    SourceType type = SourceType::f32;
    int64_t rows = 0;
    int64_t cols = 0;
    const void* data = nullptr;
};

// Bytes of all panels of a matrix.
constexpr int64_t packed_bytes(Format format, int64_t rows, int64_t cols) {
    return panel_count(rows) * panel_bytes(format, cols);
}

// Fill the panels of a matrix, on `threads` threads.
//   bf16   rounded to nearest even
//   int8   per row and group of 32: round(w / scale) in -127..127, with scale = bf16(max|w| / 127)
//   int4   per row and group of 32: round(w / scale) in -8..7, with scale = bf16(-m / 8) and m the number of the
//          largest magnitude, the first if there are several; so that m itself is met by -8, whatever its sign
// False, and panels of no use, if a number is NaN or infinite, or becomes so by rounding.
// Throws std::bad_alloc.
bool pack_matrix(const Source& source, Format format, void* panels, int threads);

// Copy row after row, as f32 or bf16. False and errors as for pack_matrix.
bool pack_table(const Source& source, Format format, void* table, int threads);

// Copy all numbers as f32, and zeros after them up to a multiple of 16. False as for pack_matrix.
bool pack_vector(const Source& source, float* vector);

// The numbers that a matrix stands for, (rows, cols) floats: the inverse of pack_matrix, for tests.
void unpack_matrix(const Matrix& matrix, float* numbers);

}  // namespace barkfast
