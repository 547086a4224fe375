// Which of the compiled instruction-set levels runs.
#pragma once

#include <string>
#include <vector>

namespace barkfast {

// Each level holds all that the one before it has, but for avx2_vnni, which is beside avx512, and for amx, which is
// beside avx512_bf16.
enum class Isa { scalar, avx2, avx2_vnni, avx512, avx512_vnni, avx512_bf16, amx };

const char* isa_name(Isa isa);

// All levels, the slowest first.
std::vector<Isa> all_isas();

// Whether this build holds code for the level, and this CPU and its system can run it.
bool isa_supported(Isa isa);

// The level that $BARKFAST_CPU_ISA names, or else the best that is supported.
// Throws std::invalid_argument for an unknown name and for a level that cannot run here.
Isa choose_isa();

// The level called `name`, with the same errors.
Isa parse_isa(const std::string& name);

}  // namespace barkfast
