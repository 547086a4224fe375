// Tests drawing tokens: the random numbers, the filters, and the drawn index.
#include <algorithm>
#include <functional>

#include "check.h"
#include "filters.h"

using namespace barkfast;
using namespace tests;

namespace {

// Philox-4x32-10 as in its paper, without vectors. Returns the first word of the output.
uint32_t philox(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint64_t seed) {
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
        const uint64_t a = uint64_t(0xd2511f53u) * c0, b = uint64_t(0xcd9e8d57u) * c2;
        c0 = uint32_t(b >> 32) ^ c1 ^ k0;
        c1 = uint32_t(b);
        c2 = uint32_t(a >> 32) ^ c3 ^ k1;
        c3 = uint32_t(a);
    }
    return c0;
}

double noise(const Draw& draw, int64_t index) {
    const double v = (philox(uint32_t(index), draw.number, draw.stage, 0, draw.seed) + 0.5) * 0x1p-32;
    return -std::log(-std::log1p(-v));
}

Drawn run(Isa isa, const std::vector<float>& logits, const Draw& draw, bool wants_last_p = true) {
    // Exactly the scratch size that the kernel requires, filled with NaN.
    std::vector<float> scratch(2 * size_t(round_up(int64_t(logits.size()), 16)), kNan);
    return kernels(isa).sample(logits.data(), int64_t(logits.size()), draw, wants_last_p, scratch.data());
}

// The smallest logit that passes top-p and top-k, by sorting.
float sorted_threshold(std::vector<float> logits, double top_p, int top_k) {
    std::sort(logits.begin(), logits.end(), std::greater<float>());
    float threshold = -kInfinity;
    if (top_p < 1) {
        double total = 0, larger = 0;
        for (float x : logits) total += std::exp(double(x) - logits[0]);
        for (size_t i = 0; i < logits.size(); ++i) {
            if (i == 0 || logits[i] < logits[i - 1]) {
                larger = 0;
                for (size_t j = 0; j < i; ++j) larger += std::exp(double(logits[j]) - logits[0]);
            }
            if (larger <= top_p * total) threshold = logits[i];
        }
    }
    if (top_k > 0) threshold = std::max(threshold, logits[std::min(size_t(top_k), logits.size()) - 1]);
    return threshold;
}

}  // namespace

TEST(philox_of_this_test) {
    // Random123's kat_vectors.
    CHECK(philox(0, 0, 0, 0, 0) == 0x6627e8d5);
    CHECK(philox(0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffffffffffff) == 0x408f276d);
    CHECK(philox(0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0x299f31d0a4093822) == 0xd16cfe09);
}

// Among equal logits the largest noise wins, which comes from the smallest word: so the index checks all words.
TEST(sample_noise) {
    for (Isa isa : levels()) {
        note = isa_name(isa);
        Numbers numbers(1);
        for (int i = 0; i < 200; ++i) {
            const std::vector<float> logits(size_t(numbers.integer(1, 400)), 0.25f);
            Draw draw;
            draw.temperature = 1;
            draw.seed = i == 0 ? 0 : uint64_t(numbers.word()) << 32 | numbers.word();
            draw.stage = uint32_t(i % 3);
            draw.number = i < 10 ? uint32_t(i) : numbers.word();
            int64_t smallest = 0;
            for (int64_t j = 0; j < int64_t(logits.size()); ++j)
                if (philox(uint32_t(j), draw.number, draw.stage, 0, draw.seed) <
                    philox(uint32_t(smallest), draw.number, draw.stage, 0, draw.seed))
                    smallest = j;
            CHECK(run(isa, logits, draw, false).index == smallest);
        }
    }
}

TEST(sample) {
    for (Isa isa : levels()) {
        note = isa_name(isa);
        Numbers numbers(2);
        for (int i = 0; i < 120; ++i) {
            const int32_t n = i < 3 ? 10001 : numbers.integer(1, 300);
            std::vector<float> logits = numbers.floats(n, -6, 6);
            // Ties, so that some are at the thresholds of the filters.
            if (i % 4 == 1)
                for (float& x : logits) x = std::round(x * 2) / 2;
            Draw draw;
            draw.temperature = numbers.uniform(0.2f, 1.5f);
            draw.top_p = i % 3 ? numbers.uniform(0.05f, 0.999f) : 2.0f;
            draw.top_k = i % 5 ? 0 : numbers.integer(1, 2 * n);
            draw.seed = uint64_t(numbers.word()) << 32 | numbers.word();
            draw.number = numbers.word();
            const float threshold = n > 1000 ? filter_threshold(logits.data(), n, draw.top_p, draw.top_k,
                                                                std::vector<float>(size_t(n)).data())
                                             : sorted_threshold(logits, draw.top_p, draw.top_k);
            double best = -1e30, total = 0, mine = -1e30;
            const Drawn drawn = run(isa, logits, draw);
            CHECK(drawn.finite);
            for (int32_t j = 0; j < n; ++j) {
                if (logits[size_t(j)] < threshold) continue;
                const double tempered = double(logits[size_t(j)]) / draw.temperature, score = tempered + noise(draw, j);
                total += std::exp(tempered);
                best = std::max(best, score);
                if (j == drawn.index) mine = score;
            }
            // Rounding could swap two scores that are closer than this.
            CHECK(mine >= best - 1e-4);
            const double last = logits.back() < threshold ? 0 : std::exp(logits.back() / draw.temperature) / total;
            CHECK(std::fabs(drawn.last_p - last) <= 1e-5 * last);
            const Drawn unasked = run(isa, logits, draw, false), scalar = run(Isa::scalar, logits, draw);
            CHECK(unasked.index == drawn.index);
            CHECK(scalar.index == drawn.index);
        }
    }
}

TEST(sample_follows_the_odds) {
    for (Isa isa : levels()) {
        note = isa_name(isa);
        const std::vector<float> logits = {0.0f, 2.0f, -1.0f, 1.0f, 0.5f};
        double total = 0;
        for (float x : logits) total += std::exp(x);
        int counts[5] = {};
        Draw draw;
        draw.temperature = 1;
        draw.seed = 77;
        const int n = 4000;
        for (int i = 0; i < n; ++i, ++draw.number) ++counts[run(isa, logits, draw, false).index];
        for (int i = 0; i < 5; ++i) {
            const double p = std::exp(logits[size_t(i)]) / total;
            CHECK(std::fabs(counts[i] - n * p) < 4 * std::sqrt(n * p));
        }
    }
}

TEST(sample_greedily) {
    for (Isa isa : levels()) {
        note = isa_name(isa);
        Draw greedy;
        greedy.top_p = 0.1f;
        greedy.top_k = 3;
        for (int64_t n : {1, 5, 16, 17, 33, 100}) {
            for (int64_t winner = 0; winner < n; ++winner) {
                std::vector<float> logits(size_t(n), -5.0f);
                // A tie: the first index wins.
                logits[size_t(winner)] = logits[size_t(n - 1)] = -4.0f;
                const Drawn drawn = run(isa, logits, greedy);
                CHECK(drawn.index == winner);
                CHECK(drawn.last_p == (winner == n - 1 ? 1.0f : 0.0f));
                Draw cold;
                cold.temperature = 1e-36f;
                // At this temperature noise only decides the tie.
                const int32_t index = run(isa, logits, cold).index;
                CHECK(index == winner || index == n - 1);
            }
        }
    }
}

TEST(sample_refuses_what_is_not_finite) {
    for (Isa isa : levels()) {
        note = isa_name(isa);
        for (float temperature : {0.0f, 0.7f})
            for (float bad : {kNan, kInfinity, -kInfinity})
                for (size_t i = 0; i < 35; ++i) {
                    std::vector<float> logits(35, 1.0f);
                    logits[i] = bad;
                    Draw draw;
                    draw.temperature = temperature;
                    CHECK(!run(isa, logits, draw).finite);
                }
    }
}

TEST(filters) {
    Numbers numbers(3);
    for (int i = 0; i < 400; ++i) {
        note = "case " + std::to_string(i);
        const int32_t n = numbers.integer(1, 120);
        std::vector<float> logits = numbers.floats(n, -5, 5), scratch(static_cast<size_t>(n));
        if (i % 2)
            for (float& x : logits) x = std::round(x);
        if (i % 5 == 0) std::sort(logits.begin(), logits.end());
        const float top_p = i % 3 == 0 ? 2.0f : i % 7 == 0 ? 0.0f : numbers.uniform(0, 1);
        const int top_k = i % 4 == 0 ? 0 : numbers.integer(1, 150);
        const float threshold = filter_threshold(logits.data(), n, top_p, top_k, scratch.data());
        const float expected = sorted_threshold(logits, top_p, top_k);
        for (float x : logits) CHECK((x >= threshold) == (x >= expected));
    }
    note = "borders";
    // One logit with half of the mass, and two with a quarter each.
    const std::vector<float> logits = {0.0f, std::log(2.0f), -1e9f, 0.0f};
    float scratch[4];
    CHECK(filter_threshold(logits.data(), 4, 0.5001f, 0, scratch) == 0);
    CHECK(filter_threshold(logits.data(), 4, 0.4999f, 0, scratch) == logits[1]);
    CHECK(filter_threshold(logits.data(), 4, 0.999f, 0, scratch) == 0);
    CHECK(filter_threshold(logits.data(), 4, 1.0f, 0, scratch) == -kInfinity);
    CHECK(filter_threshold(logits.data(), 4, 2.0f, 2, scratch) == 0);
    CHECK(filter_threshold(logits.data(), 4, 2.0f, 9, scratch) == -kInfinity);
}
