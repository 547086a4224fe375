// The level for x86 with AVX2 and FMA.
#include "level.h"
#include "levels.h"

#if BARKFAST_X86

#define LEVEL avx2
#define HAS_VNNI 0
#define HAS_BF16 0

BEGIN_TARGET("avx2,fma,f16c")
namespace barkfast {
namespace avx2 {

// clang-format off: each header needs the ones before it.
#include "simd_avx2.h"
#include "functions.h"
#include "linear.h"
#include "words.h"
#include "pick.h"
#include "rows.h"
#include "attend.h"
#include "sample.h"
#include "table.h"
// clang-format on

}  // namespace avx2
}  // namespace barkfast
END_TARGET

#endif
