// The functions of a level as plain calls on 16 numbers. Included inside a namespace, after simd_*.h.

#include "functions.h"
#include "philox.h"

static void apply_exp(const float* x, float* y) { store(y, exp(load(x))); }
static void apply_exp_minus_1(const float* x, float* y) { store(y, exp_minus_1(load(x))); }
static void apply_log(const float* x, float* y) { store(y, log(load(x))); }
static void apply_sigmoid(const float* x, float* y) { store(y, sigmoid(load(x))); }
static void apply_tanh(const float* x, float* y) { store(y, tanh(load(x))); }
static void apply_gelu(const float* x, float* y) { store(y, gelu(load(x))); }
static void apply_gumbel(const int32_t* words, float* y) { store(y, gumbel_of_word(iload(words))); }

// counter: 4 times 16 words; replaced by the output.
static void apply_philox(int32_t* counter, uint64_t seed) {
    const Words words = {{iload(counter), iload(counter + 16), iload(counter + 32), iload(counter + 48)}};
    const Words random = philox(words, uint32_t(seed), uint32_t(seed >> 32));
    for (int i = 0; i < 4; ++i) istore(counter + 16 * i, random.w[i]);
}

static const tests::OwnLevel& functions_of_level() {
    static const tests::OwnLevel functions = {apply_exp,  apply_exp_minus_1, apply_log,    apply_sigmoid,
                                              apply_tanh, apply_gelu,        apply_gumbel, apply_philox};
    return functions;
}
