// Instruction sets that this CPU has and the operating system enables.
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
    // Linux also requires a request before the first tile instruction, see tiles_allowed.
    bool amx_tile = false;
    bool amx_bf16 = false;
    bool amx_int8 = false;
    bool neon = false;
};

// Detected once per process; all false on an unknown CPU architecture.
const CpuFeatures& cpu_features();

// Whether the operating system lets this process use AMX tiles. Requests the permission once per process, if the CPU
// has them. Forked children keep it.
bool tiles_allowed();

}  // namespace barkfast
