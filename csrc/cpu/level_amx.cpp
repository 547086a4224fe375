// The level for x86 with AMX: tiles for products of many rows, AVX-512 for the rest.
//
// Does not use AVX-512's dot products of bfloat16: some CPUs with AMX hide them or support them in name only.
#include "level.h"
#include "levels.h"

#if BARKFAST_X86

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about undefined registers inside its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define LEVEL amx
#define HAS_VNNI 1
#define HAS_BF16 0
#define HAS_TILES 1

BEGIN_TARGET("avx2,fma,f16c,avx512f,avx512bw,avx512vnni,amx-tile,amx-bf16")
namespace barkfast {
namespace amx {

// clang-format off: each header needs the ones before it.
#include "simd_avx512.h"
#include "simd_tiles.h"
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

}  // namespace amx
}  // namespace barkfast
END_TARGET

#endif
