// The level for every processor: plain C++, compiled for the build's baseline.
#include "level.h"
#include "levels.h"

#define LEVEL scalar

// The compiler vectorizes the loops over lanes. If the loops around them are unrolled, tiles compile for half a minute.
#undef UNROLL
#define UNROLL

namespace barkfast {
namespace scalar {

// clang-format off: each header needs the ones before it.
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
