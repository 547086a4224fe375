// The level for x86 with AVX-512.
#include "level.h"
#include "levels.h"

#if BARKFAST_X86

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about undefined registers inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define LEVEL avx512
#define HAS_VNNI 0
#define HAS_BF16 0

BEGIN_TARGET("avx2,fma,f16c,avx512f,avx512bw")
namespace barkfast {
namespace avx512 {

// clang-format off: each header needs the ones before it.
#include "simd_avx512.h"
#include "functions.h"
#include "linear.h"
#include "words.h"
#include "pick.h"
#include "rows.h"
#include "attend.h"
#include "sample.h"
#include "table.h"
// clang-format on

}  // namespace avx512
}  // namespace barkfast
END_TARGET

#endif
