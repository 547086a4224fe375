// Tests whole prompts and windows: results of all products of many rows, compared with float32.
#include "barkfast/refiner.h"
#include "barkfast/trunk.h"
#include "levels.h"
#include "weights.h"

using namespace barkfast;
using namespace tests;

namespace {

// More rows than a tile or a pair of tiles has, and not a multiple of them.
constexpr int64_t kRows = 75, kIds = 40;
const NetworkSize kSize = {2, 2, 128, 96};

std::vector<int32_t> random_ids(int64_t n) {
    Numbers numbers{9};
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) ids.push_back(numbers.integer(0, kIds));
    return ids;
}

// The last position's hidden state of a prompt, and the logits of a window.
std::vector<float> run(Format format, const Kernels& kernels, int threads) {
    Pool pool(threads);
    Weights gpt_weights{format, kSize, kIds}, fine_weights{format, kSize, kIds};
    const Network gpt = gpt_weights.build(false), fine = fine_weights.build(true);
    Buffer<uint8_t> memory;
    const KvCache cache = cache_of(gpt, 1, memory);
    std::vector<float> out(size_t(kSize.n_embd + kRows * kIds));
    Trunk trunk(gpt, kernels, pool);
    trunk.prefill(random_ids(kRows).data(), kRows, 0, cache, 0, out.data());
    Refiner refiner(fine, kernels, pool);
    refiner.logits(random_ids(3 * kRows).data(), kRows, 2, out.data() + kSize.n_embd);
    return out;
}

// RMS of the difference, divided by the RMS of the expected values.
double rms_ratio(const std::vector<float>& expected, const std::vector<float>& found) {
    double difference = 0, whole = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += std::pow(double(found[i]) - expected[i], 2);
        whole += std::pow(double(expected[i]), 2);
    }
    return std::sqrt(difference / whole);
}

struct Bound {
    Format format;
    double ratio;
};

}  // namespace

TEST(whole_passes_are_near_float32) {
    const std::vector<float> expected = run(Format::f32, scalar::table(), 1);
    for (const Bound& bound : {Bound{Format::bf16, 0.01}, Bound{Format::int8, 0.02}, Bound{Format::int4, 0.2}}) {
        const double plain = rms_ratio(expected, run(bound.format, scalar::table(), 1));
        for (Isa isa : levels()) {
            note = std::string(isa_name(isa)) + ", format " + std::to_string(int(bound.format));
            CHECK(rms_ratio(expected, run(bound.format, kernels(isa), 2)) < bound.ratio);
        }
        note = "emulated tiles, format " + std::to_string(int(bound.format));
        const std::vector<float> by_tiles = run(bound.format, emulated_tiles(), 1);
        const double ratio = rms_ratio(expected, by_tiles);
        CHECK(ratio < bound.ratio && ratio < 1.5 * plain);
        // The same bits for any number of threads.
        for (int threads : {2, 3}) CHECK(same_bits(by_tiles, run(bound.format, emulated_tiles(), threads)));
    }
}
