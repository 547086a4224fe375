#include <cstdlib>
#include <stdexcept>

#include "barkfast/cpu_features.h"
#include "barkfast/isa.h"
#include "barkfast/kernels.h"
#include "levels.h"

namespace barkfast {
namespace {

constexpr const char* kVariable = "BARKFAST_CPU_ISA";

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
constexpr bool kX86 = true;
#else
constexpr bool kX86 = false;
#endif

std::string list_supported() {
    std::string names;
    for (Isa isa : all_isas())
        if (isa_supported(isa)) names += (names.empty() ? "" : ", ") + std::string(isa_name(isa));
    return names;
}

Isa parse(const std::string& name, const std::string& source) {
    for (Isa isa : all_isas()) {
        if (name != isa_name(isa)) continue;
        if (!isa_supported(isa))
            throw std::invalid_argument(source + " is '" + name + "', which this CPU or this build does not have; " +
                                        "expected one of " + list_supported());
        return isa;
    }
    throw std::invalid_argument(source + " is '" + name + "'; expected one of " + list_supported());
}

}  // namespace

const char* isa_name(Isa isa) {
    switch (isa) {
        case Isa::scalar:
            return "scalar";
        case Isa::avx2:
            return "avx2";
        case Isa::avx2_vnni:
            return "avx2_vnni";
        case Isa::avx512:
            return "avx512";
        case Isa::avx512_vnni:
            return "avx512_vnni";
        case Isa::avx512_bf16:
            return "avx512_bf16";
        case Isa::amx:
            return "amx";
    }
    return "unknown";
}

std::vector<Isa> all_isas() {
    return {Isa::scalar, Isa::avx2, Isa::avx2_vnni, Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx};
}

bool isa_supported(Isa isa) {
    const CpuFeatures& f = cpu_features();
    const bool avx2 = kX86 && f.avx2 && f.fma && f.f16c, avx512 = avx2 && f.avx512f && f.avx512bw;
    switch (isa) {
        case Isa::scalar:
            return true;
        case Isa::avx2:
            return avx2;
        case Isa::avx2_vnni:
            return avx2 && f.avx_vnni;
        case Isa::avx512:
            return avx512;
        case Isa::avx512_vnni:
            return avx512 && f.avx512_vnni;
        case Isa::avx512_bf16:
            return avx512 && f.avx512_vnni && f.avx512_bf16;
        case Isa::amx:
            return avx512 && f.avx512_vnni && f.amx_tile && f.amx_bf16 && tiles_allowed();
    }
    return false;
}

Isa parse_isa(const std::string& name) { return parse(name, "the instruction set"); }

Isa choose_isa() {
    const char* forced = std::getenv(kVariable);
    if (forced && *forced) return parse(forced, kVariable);
    Isa best = Isa::scalar;
    for (Isa isa : all_isas())
        if (isa_supported(isa)) best = isa;
    return best;
}

const Kernels& kernels(Isa isa) {
    if (!isa_supported(isa)) parse_isa(isa_name(isa));
    switch (isa) {
        case Isa::scalar:
            break;
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
        case Isa::avx2:
            return avx2::table();
        case Isa::avx2_vnni:
            return avx2_vnni::table();
        case Isa::avx512:
            return avx512::table();
        case Isa::avx512_vnni:
            return avx512_vnni::table();
        case Isa::avx512_bf16:
            return avx512_bf16::table();
        case Isa::amx:
            return amx::table();
#else
        default:
            break;
#endif
    }
    return scalar::table();
}

}  // namespace barkfast
