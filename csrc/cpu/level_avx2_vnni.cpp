// The level for x86 with AVX2 and its dot products of bytes.
#include "level.h"
#include "levels.h"

#if BARKFAST_X86

#define LEVEL avx2_vnni
#define HAS_VNNI 1
#define HAS_BF16 0

BEGIN_TARGET("avx2,fma,f16c,avxvnni")
namespace barkfast {
namespace avx2_vnni {

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

}  // namespace avx2_vnni
}  // namespace barkfast
END_TARGET

#endif
