// Tests elementary functions and Philox, which are in no kernel table, against double precision and published vectors.
#include "check.h"
#include "level.h"

namespace tests {
namespace {

using Function = void(const float* x, float* y);

struct OwnLevel {
    Function *exp, *exp_minus_1, *log, *sigmoid, *tanh, *gelu;
    void (*gumbel)(const int32_t* words, float* y);
    void (*philox)(int32_t* counter, uint64_t seed);
};

}  // namespace
}  // namespace tests

namespace barkfast {
namespace own_scalar {
#include "simd_scalar.h"
// The functions under test.
#include "own_level.h"
}  // namespace own_scalar
}  // namespace barkfast

#if BARKFAST_X86
#if defined(__GNUC__) && !defined(__clang__)
// As in level.cpp.in: GCC 12 warns about its own intrinsics.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#define HAS_VNNI 0
#define HAS_BF16 0

BEGIN_TARGET("avx2,fma,f16c")
namespace barkfast {
namespace own_avx2 {
#include "simd_avx2.h"
// The functions under test.
#include "own_level.h"
}  // namespace own_avx2
}  // namespace barkfast
END_TARGET

BEGIN_TARGET("avx2,fma,f16c,avx512f,avx512bw")
namespace barkfast {
namespace own_avx512 {
#include "simd_avx512.h"
// The functions under test.
#include "own_level.h"
}  // namespace own_avx512
}  // namespace barkfast
END_TARGET
#endif

using namespace barkfast;
using namespace tests;

namespace {

struct Named {
    const char* name;
    const OwnLevel* functions;
};

std::vector<Named> own_levels() {
    std::vector<Named> found = {{"scalar", &own_scalar::functions_of_level()}};
#if BARKFAST_X86
    if (isa_supported(Isa::avx2)) found.push_back({"avx2", &own_avx2::functions_of_level()});
    if (isa_supported(Isa::avx512)) found.push_back({"avx512", &own_avx512::functions_of_level()});
#endif
    return found;
}

// |got - truth| <= absolute + relative * |truth| at 16384 numbers from low to high.
bool is_close(Function* function, double (*truth)(double), float low, float high, double relative,
              double absolute = 0) {
    const int64_t n = 1 << 14;
    bool close = true;
    for (int64_t i = 0; i < n; i += 16) {
        float x[16], y[16];
        for (int64_t j = 0; j < 16; ++j) x[j] = float(low + (double(high) - low) * double(i + j) / double(n - 1));
        function(x, y);
        for (int64_t j = 0; j < 16; ++j) {
            const double t = truth(x[j]);
            if (!(std::fabs(y[j] - t) <= absolute + relative * std::fabs(t))) close = false;
        }
    }
    return close;
}

float at(Function* function, float x) {
    float in[16], out[16];
    for (float& v : in) v = x;
    function(in, out);
    return out[3];
}

double true_exp(double x) { return std::exp(x); }
double true_expm1(double x) { return std::expm1(x); }
double true_log(double x) { return std::log(x); }
double true_tanh(double x) { return std::tanh(x); }
double true_sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Two units in the last place.
constexpr double kTwoUlp = 0x1p-22;

}  // namespace

TEST(functions) {
    for (const Named& level : own_levels()) {
        note = level.name;
        const OwnLevel& f = *level.functions;
        CHECK(is_close(f.exp, true_exp, -87.3f, 88.7f, kTwoUlp));
        CHECK(is_close(f.exp, true_exp, -1, 1, kTwoUlp));
        CHECK(is_close(f.exp_minus_1, true_expm1, -80, 0, kTwoUlp));
        CHECK(is_close(f.exp_minus_1, true_expm1, -0.5f, -1e-6f, kTwoUlp));
        CHECK(is_close(f.log, true_log, 1.2e-38f, 1e-30f, kTwoUlp));
        CHECK(is_close(f.log, true_log, 0.3f, 3, kTwoUlp));
        CHECK(is_close(f.log, true_log, 1, 3e38f, kTwoUlp));
        CHECK(is_close(f.sigmoid, true_sigmoid, -80, 80, kTwoUlp));
        CHECK(is_close(f.tanh, true_tanh, -1, 1, kTwoUlp));
        CHECK(is_close(f.tanh, true_tanh, -30, 30, kTwoUlp));
        CHECK(is_close(f.gelu, exact_gelu, -1, 1, 5e-7));
        CHECK(is_close(f.gelu, exact_gelu, -5, 1, 1e-6));
        CHECK(is_close(f.gelu, exact_gelu, -40, 5, 1e-7, 1e-7));
        CHECK(is_close(f.gelu, exact_gelu, 1, 100, 1.2e-7));

        CHECK(at(f.exp, 89) == kInfinity && at(f.exp, 3e38f) == kInfinity && at(f.exp, kInfinity) == kInfinity);
        CHECK(at(f.exp, -88) == 0 && at(f.exp, -3e38f) == 0 && at(f.exp, -kInfinity) == 0 && at(f.exp, 0) == 1);
        CHECK(at(f.exp_minus_1, -3e38f) == -1 && at(f.exp_minus_1, -kInfinity) == -1 && at(f.exp_minus_1, 0) == 0);
        CHECK(at(f.log, 1) == 0 && at(f.log, kInfinity) == kInfinity);
        CHECK(at(f.sigmoid, 3e38f) == 1 && at(f.sigmoid, -3e38f) == 0 && at(f.sigmoid, 0) == 0.5f);
        CHECK(at(f.tanh, 3e38f) == 1 && at(f.tanh, -3e38f) == -1 && at(f.tanh, -kInfinity) == -1);
        CHECK(at(f.gelu, 3e38f) == 3e38f && at(f.gelu, -3e38f) == 0 && at(f.gelu, kInfinity) == kInfinity);
        for (Function* function : {f.exp, f.exp_minus_1, f.log, f.sigmoid, f.tanh, f.gelu})
            CHECK(std::isnan(at(function, kNan)) && std::isnan(at(function, -kNan)));
    }
}

TEST(philox) {
    // Random123's kat_vectors, philox4x32-10: counter, key, output.
    const uint32_t known[3][10] = {
        {0, 0, 0, 0, 0, 0, 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8},
        {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff, 0x408f276d, 0x41c83b0e, 0xa20bc7c6,
         0x6d5451fd},
        {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344, 0xa4093822, 0x299f31d0, 0xd16cfe09, 0x94fdcceb, 0x5001e420,
         0x24126ea1},
    };
    for (const Named& level : own_levels()) {
        note = level.name;
        for (const auto& vector : known) {
            int32_t counter[64];
            for (int i = 0; i < 64; ++i) counter[i] = int32_t(vector[i / 16]);
            level.functions->philox(counter, uint64_t(vector[5]) << 32 | vector[4]);
            for (int i = 0; i < 64; ++i) CHECK(uint32_t(counter[i]) == vector[6 + i / 16]);
        }
    }
}

TEST(gumbel) {
    const uint32_t corners[] = {0, 1, 1 << 21, 1 << 22, (1 << 22) + 5, 1 << 24, 1u << 31, 0xffffff7f, 0xffffffff};
    for (const Named& level : own_levels()) {
        note = level.name;
        for (uint32_t corner : corners) {
            int32_t words[16];
            float y[16];
            for (int i = 0; i < 16; ++i) words[i] = int32_t(corner + uint32_t(corner > 1u << 31 ? -i : i));
            level.functions->gumbel(words, y);
            for (int i = 0; i < 16; ++i) {
                const double v = std::fmin((uint32_t(words[i]) + 0.5) * 0x1p-32, 1 - 0x1p-24);
                // Near v = 2^-10, 1 - v is rounded to 2^-25.
                CHECK(std::fabs(y[i] + std::log(-std::log1p(-v))) < 4e-5);
            }
        }
    }
}
