#include "barkfast/cpu_features.h"

#include <cstdint>

#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__GNUC__) || defined(__clang__))
#define BARKFAST_X86 1
#include <cpuid.h>
#endif

namespace barkfast {
namespace {

#ifdef BARKFAST_X86

// CPUID instead of __builtin_cpu_supports: compilers differ in which of the newer names they accept.
struct Registers {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf) {
    Registers r;
    // Returns 0 and leaves the zeros if the CPU does not have the leaf.
    __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
    return r;
}

// The register states that the operating system saves on a context switch (XCR0).
uint64_t saved_states() {
    uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<uint64_t>(high) << 32) | low;
}

bool bit(uint32_t word, int n) { return (word >> n) & 1u; }

CpuFeatures detect() {
    CpuFeatures f;
    const Registers basic = cpuid(1, 0);
    const bool has_xgetbv = bit(basic.ecx, 27);
    const uint64_t states = has_xgetbv ? saved_states() : 0;
    constexpr uint64_t ymm_states = 0x6, zmm_states = 0xe6, tile_states = 0x60000;
    const bool ymm = (states & ymm_states) == ymm_states;
    const bool zmm = (states & zmm_states) == zmm_states;
    const bool tile = (states & tile_states) == tile_states;

    const Registers extended = cpuid(7, 0);
    const Registers extended1 = extended.eax >= 1 ? cpuid(7, 1) : Registers{};
    f.fma = ymm && bit(basic.ecx, 12);
    f.f16c = ymm && bit(basic.ecx, 29);
    f.avx2 = ymm && bit(extended.ebx, 5);
    f.avx_vnni = ymm && bit(extended1.eax, 4);
    f.avx512f = zmm && bit(extended.ebx, 16);
    f.avx512bw = zmm && bit(extended.ebx, 30);
    f.avx512_vnni = zmm && bit(extended.ecx, 11);
    f.avx512_bf16 = zmm && bit(extended1.eax, 5);
    f.avx512_fp16 = zmm && bit(extended.edx, 23);
    f.amx_bf16 = tile && bit(extended.edx, 22);
    f.amx_tile = tile && bit(extended.edx, 24);
    f.amx_int8 = tile && bit(extended.edx, 25);
    return f;
}

#elif defined(__aarch64__)

// Advanced SIMD is part of the architecture.
CpuFeatures detect() {
    CpuFeatures f;
    f.neon = true;
    return f;
}

#else

CpuFeatures detect() { return {}; }

#endif

}  // namespace

const CpuFeatures& cpu_features() {
    static const CpuFeatures features = detect();
    return features;
}

bool tiles_allowed() {
#if defined(__linux__) && defined(__x86_64__)
    // ARCH_REQ_XCOMP_PERM for XFEATURE_XTILEDATA. Linux before 5.16 neither knows it nor saves tile registers.
    constexpr long kRequest = 0x1023, kTileData = 18;
    static const bool allowed = cpu_features().amx_tile && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
    return allowed;
#else
    return false;
#endif
}

}  // namespace barkfast
