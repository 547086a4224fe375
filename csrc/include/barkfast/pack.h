// Packs a checkpoint's numbers to the panels of matrix.h, to tables and to vectors.
#pragma once

#include <cstdint>

#include "barkfast/matrix.h"

namespace barkfast {

// How a checkpoint stores its numbers.
enum class SourceType : int { f32 = 0, bf16 = 1, f16 = 2 };

constexpr int64_t source_bytes(SourceType type) { return type == SourceType::f32 ? 4 : 2; }

// Source numbers: (rows, cols), row-major, at any address.
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
//          largest magnitude, the first if there are several; so m itself maps to -8, whatever its sign
// Returns false, with invalid panels, if a number is NaN or infinite, or rounds to infinity.
// Throws std::bad_alloc.
bool pack_matrix(const Source& source, Format format, void* panels, int threads);

// Copy row by row, as f32 or bf16. Returns false and throws like pack_matrix.
bool pack_table(const Source& source, Format format, void* table, int threads);

// Copy all numbers as f32, zero-padded to a multiple of 16. Returns false like pack_matrix.
bool pack_vector(const Source& source, float* vector);

// Write the numbers of a packed matrix, (rows, cols) floats: the inverse of pack_matrix, for tests.
void unpack_matrix(const Matrix& matrix, float* numbers);

}  // namespace barkfast
