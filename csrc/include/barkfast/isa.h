// The instruction-set levels, and the choice of one.
#pragma once

#include <string>
#include <vector>

namespace barkfast {

// Each level includes the one before it, with two exceptions: avx512 does not include avx2_vnni, and amx does not
// include avx512_bf16.
enum class Isa { scalar, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16, amx };

const char* isa_name(Isa isa);

// All levels, slowest first.
std::vector<Isa> all_isas();

// Whether this build contains the level, and this CPU and operating system can run it.
bool isa_supported(Isa isa);

// The level named by $BARKFAST_CPU_ISA, or the best supported one if that is unset.
// Throws std::invalid_argument for an unknown name and for a level that cannot run here.
Isa choose_isa();

// The level called `name`. Throws like choose_isa.
Isa parse_isa(const std::string& name);

}  // namespace barkfast
