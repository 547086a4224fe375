// Products with tiles in plain C++: arrays replace the AMX registers, so that tiles.h runs on any machine.
#include <cmath>
#include <limits>
#include <stdexcept>

#include "check.h"
#include "level.h"

#define LEVEL amx
#define HAS_TILES 1

// As in the level scalar, see levels.cmake.
#undef UNROLL
#define UNROLL

namespace barkfast {
namespace emulated {

struct TileShapes {
    uint8_t rows[16] = {};
    uint16_t bytes[16] = {};
};

struct Tile {
    uint8_t bytes[16][64];
};
static thread_local Tile tiles[8];
static thread_local TileShapes shapes;
static thread_local bool begun = false;

// Using a register that has no rows, or outside begin and end, is a programming error.
static void require(bool good) {
    if (!good) throw std::logic_error("a tile register is used that has no shape");
}

INLINE void begin_tiles(const TileShapes& wanted) {
    shapes = wanted;
    begun = true;
    // The CPU sets them to zeros; here they hold NaN, so that a result made of them fails.
    std::memset(tiles, 0xff, sizeof tiles);
}
INLINE void end_tiles() { begun = false; }

template <int T>
INLINE void zero_tile() {
    require(begun && shapes.rows[T] > 0 && shapes.bytes[T] == 64);
    std::memset(&tiles[T], 0, sizeof tiles[T]);
}
template <int T>
INLINE void load_tile(const void* p, int64_t stride) {
    require(begun && shapes.rows[T] > 0 && shapes.bytes[T] == 64);
    std::memset(&tiles[T], 0, sizeof tiles[T]);
    for (int r = 0; r < shapes.rows[T]; ++r)
        std::memcpy(tiles[T].bytes[r], static_cast<const uint8_t*>(p) + r * stride, 64);
}
template <int T>
INLINE void store_tile(void* p, int64_t stride) {
    require(begun && shapes.rows[T] > 0);
    for (int r = 0; r < shapes.rows[T]; ++r) std::memcpy(static_cast<uint8_t*>(p) + r * stride, tiles[T].bytes[r], 64);
}

// bfloat16 to float; denormals become zero.
static float wide(const uint8_t* p) {
    uint16_t half;
    std::memcpy(&half, p, 2);
    const uint32_t word = uint32_t(half) << 16;
    float x;
    std::memcpy(&x, &word, 4);
    return std::fabs(x) < std::numeric_limits<float>::min() ? 0.0f : x;
}

// Even and odd columns are summed separately, then both sums are added to the old value: as the CPU does it.
template <int C, int A, int B>
INLINE void dot_tiles() {
    require(begun && shapes.rows[C] == shapes.rows[A] && shapes.rows[B] == 16);
    for (int m = 0; m < shapes.rows[C]; ++m)
        for (int n = 0; n < 16; ++n) {
            float even = 0, odd = 0, sum;
            for (int k = 0; k < 16; ++k) {
                even = std::fma(wide(&tiles[A].bytes[m][4 * k]), wide(&tiles[B].bytes[k][4 * n]), even);
                odd = std::fma(wide(&tiles[A].bytes[m][4 * k + 2]), wide(&tiles[B].bytes[k][4 * n + 2]), odd);
            }
            std::memcpy(&sum, &tiles[C].bytes[m][4 * n], 4);
            sum += even + odd;
            std::memcpy(&tiles[C].bytes[m][4 * n], &sum, 4);
        }
}

// clang-format off: each header needs the ones before it.
#include "simd_scalar.h"
#include "functions.h"
#include "linear.h"
#include "words.h"
#include "tiles.h"
#include "pick.h"
#include "rows.h"
#include "attend.h"
#include "sample.h"
#include "table.h"
// clang-format on

}  // namespace emulated
}  // namespace barkfast

const barkfast::Kernels& tests::emulated_tiles() { return barkfast::emulated::table(); }
