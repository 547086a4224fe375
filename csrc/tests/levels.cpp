#include <stdexcept>

#include "check.h"

namespace tests {

std::vector<barkfast::Isa> levels() {
    std::vector<barkfast::Isa> supported;
    for (barkfast::Isa isa : barkfast::all_isas())
        if (barkfast::isa_supported(isa)) supported.push_back(isa);
    return supported;
}

}  // namespace tests

TEST(levels_are_known_by_name) {
    using namespace barkfast;
    CHECK(isa_supported(Isa::scalar));
    for (Isa isa : tests::levels()) {
        tests::note = isa_name(isa);
        CHECK(parse_isa(isa_name(isa)) == isa);
        CHECK(kernels(isa).isa == isa);
    }
    bool refused = false;
    try {
        parse_isa("avx9");
    } catch (const std::invalid_argument& error) {
        refused = std::string(error.what()).find("avx9") != std::string::npos;
    }
    CHECK(refused);
}
