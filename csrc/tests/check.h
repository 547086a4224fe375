// Shared by the native tests: TEST, CHECK, the place of a failure, and random numbers.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "barkfast/kernels.h"

namespace tests {

struct Registered {
    Registered(const char* name, void (*run)());
};

// Counts a check of the running test, and prints the first few failures with `note`.
void report(bool good, const char* what, const char* file, int line);

// The case under test, printed with failures.
extern std::string note;

// The levels that can run here, slowest first.
std::vector<barkfast::Isa> levels();

// Kernels in plain C++ with the amx level's products of many rows, on emulated tile registers.
const barkfast::Kernels& emulated_tiles();

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Pseudo-random numbers, the same in every run.
class Numbers {
  public:
    explicit Numbers(uint64_t seed) : state_(seed * 2654435769u + 1) {}

    uint32_t word() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return uint32_t(state_ >> 33) ^ uint32_t(state_ >> 11);
    }
    // low .. high - 1.
    int32_t integer(int32_t low, int32_t high) { return low + int32_t(word() % uint32_t(high - low)); }
    float uniform(float low, float high) { return low + (high - low) * float(word() >> 8) * 0x1p-24f; }
    std::vector<float> floats(int64_t n, float low = -1, float high = 1) {
        std::vector<float> v(size_t(n), 0.0f);
        for (float& x : v) x = uniform(low, high);
        return v;
    }

  private:
    uint64_t state_;
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// bfloat16, to nearest even, and back.
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float from_bf16(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline double exact_gelu(double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }

}  // namespace tests

#define TEST(name)                                                  \
    static void name();                                             \
    static const tests::Registered registered_##name(#name, &name); \
    static void name()
#define CHECK(condition) tests::report(bool(condition), #condition, __FILE__, __LINE__)
