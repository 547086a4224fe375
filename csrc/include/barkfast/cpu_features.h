// Which instruction sets this CPU has and its operating system lets a program use.
#pragma once

namespace barkfast {

struct CpuFeatures {
    bool avx2 = false;
    bool fma = false;
    bool f16c = false;
    bool avx_vnni = false;
    bool avx512f = false;
    bool avx512bw = false;
    bool avx512_vnni = false;
    bool avx512_bf16 = false;
    bool avx512_fp16 = false;
    // Linux also wants to be asked before the first tile instruction, see tiles_allowed.
    bool amx_tile = false;
    bool amx_bf16 = false;
    bool amx_int8 = false;
    bool neon = false;
};

// Read once per process; all false on a CPU family that is not known here.
const CpuFeatures& cpu_features();

// Whether the operating system lets this process's threads use tiles: asked once per process, where the CPU has them.
// Children of a fork keep the permission.
bool tiles_allowed();

}  // namespace barkfast
