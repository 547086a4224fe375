// The level for every processor: plain C++, compiled for the build's baseline.
#include "level.h"
#include "levels.h"

#define LEVEL scalar

// Loops over lanes are enough for the compiler: unrolled around them, tiles take it half a minute.
#undef UNROLL
#define UNROLL

namespace barkfast {
namespace scalar {

// clang-format off: each needs those before it.
#include "simd_scalar.h"
#include "functions.h"
#include "linear.h"
#include "words.h"
#include "pick.h"
#include "rows.h"
#include "attend.h"
#include "sample.h"
#include "table.h"
// clang-format on

}  // namespace scalar
}  // namespace barkfast
