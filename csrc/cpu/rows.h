// Kernels that process one row: norms, rounding to narrow types, softmax, activations.
//
// Included inside a level's namespace, after functions.h. Contracts are in kernels.h.

// Load min(n, 16) floats from p, n at least 1; the lanes beyond are `fill`.
INLINE F16 load_part(const float* p, int64_t n, float fill) {
    if (n >= 16) return load(p);
    float lanes[16];
    for (int64_t i = 0; i < 16; ++i) lanes[i] = i < n ? p[i] : fill;
    return load(lanes);
}

// Store the first min(n, 16) lanes, n at least 1.
INLINE void store_part(float* p, int64_t n, F16 a) {
    if (n >= 16) return store(p, a);
    float lanes[16];
    store(lanes, a);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

static void norm(const float* x, const float* weight, const float* bias, int64_t width, float* y) {
    F16 total = zero();
    for (int64_t i = 0; i < width; i += 16) total = add(total, load_part(x + i, width - i, 0.0f));
    const float mean = sum(total) / float(width);
    F16 squares = zero();
    for (int64_t i = 0; i < width; i += 16) {
        const F16 from_mean = sub(load_part(x + i, width - i, mean), all(mean));
        squares = fma(from_mean, from_mean, squares);
    }
    const float scale = 1.0f / std::sqrt(sum(squares) / float(width) + 1e-5f);
    for (int64_t i = 0; i < width; i += 16) {
        const int64_t n = width - i;
        const F16 normal = mul(sub(load_part(x + i, n, 0.0f), all(mean)), all(scale));
        const F16 start = bias ? load_part(bias + i, n, 0.0f) : zero();
        store_part(y + i, n, fma(normal, load_part(weight + i, n, 0.0f), start));
    }
}

static void quantize(const float* x, int64_t width, int8_t* q, float* scales, int32_t* sums) {
    for (int64_t i = 0; i < width; i += kGroup) {
        const F16 low = load_part(x + i, width - i, 0.0f);
        const F16 high = i + 16 < width ? load_part(x + i + 16, width - i - 16, 0.0f) : zero();
        const float bound = largest(max(abs(low), abs(high)));
        // 0 times infinity or NaN is NaN, and the sum stays NaN.
        const bool finite = sum(fma(high, zero(), mul(low, zero()))) == 0.0f;
        // Numbers this small count as 0, because 127 / bound would be infinite.
        const bool empty = !finite || bound < 1e-30f;
        const F16 factor = all(empty ? 0.0f : 127.0f / bound);
        const I16 first = round_to_int(finite ? mul(low, factor) : zero());
        const I16 second = round_to_int(finite ? mul(high, factor) : zero());
        store_int8(q + i, first);
        store_int8(q + i + 16, second);
        scales[i / kGroup] = !finite ? std::numeric_limits<float>::quiet_NaN() : empty ? 0.0f : bound / 127.0f;
        // At most 32 * 127, which is exact in float.
        sums[i / kGroup] = int32_t(sum(to_float(iadd(first, second))));
    }
}

static void to_bf16(const float* x, int64_t width, uint16_t* y) {
    for (int64_t i = 0; i < round_up(width, kGroup); i += 16) {
        const F16 v = i < width ? load_part(x + i, width - i, 0.0f) : zero();
        // Rounding would overflow a NaN whose bits are all ones to 0; without its low bits it does not.
        const F16 cut = from_bits(iand(bits(v), iall(int32_t(0xffff0000u))));
        store_bf16(y + i, select(less(abs(v), all(kInfinity)), v, cut));
    }
}

static void softmax(float* x, int64_t n, int64_t padded, float scale) {
    F16 highest = all(x[0]);
    for (int64_t i = 0; i < n; i += 16) highest = max(highest, load_part(x + i, n - i, x[0]));
    const F16 top = all(largest(highest)), factor = all(scale);
    F16 total = zero();
    for (int64_t i = 0; i < n; i += 16) {
        store_part(x + i, n - i, exp(mul(sub(load_part(x + i, n - i, 0.0f), top), factor)));
        total = add(total, load_part(x + i, n - i, 0.0f));
    }
    const F16 share = all(1.0f / sum(total));
    for (int64_t i = 0; i < n; i += 16) store_part(x + i, n - i, mul(load_part(x + i, n - i, 0.0f), share));
    for (int64_t i = n; i < padded; ++i) x[i] = 0.0f;
}

static void elu(const float* x, int64_t n, float* y) {
    for (int64_t i = 0; i < n; i += 16) {
        const F16 v = load_part(x + i, n - i, 0.0f);
        // 0 comes first, so that NaN passes through.
        store_part(y + i, n - i, select(less(zero(), v), v, exp_minus_1(min(zero(), v))));
    }
}

static void lstm_cell(const float* gates, int64_t width, float* cell, float* hidden) {
    for (int64_t i = 0; i < width; i += 16) {
        const int64_t n = width - i;
        const F16 in = sigmoid(load_part(gates + i, n, 0.0f));
        const F16 forget = sigmoid(load_part(gates + width + i, n, 0.0f));
        const F16 fresh = tanh(load_part(gates + 2 * width + i, n, 0.0f));
        const F16 out = sigmoid(load_part(gates + 3 * width + i, n, 0.0f));
        const F16 state = fma(forget, load_part(cell + i, n, 0.0f), mul(in, fresh));
        store_part(cell + i, n, state);
        store_part(hidden + i, n, mul(out, tanh(state)));
    }
}

static void add_to(const float* x, int64_t n, float* y) {
    for (int64_t i = 0; i < n; i += 16) {
        store_part(y + i, n - i, add(load_part(y + i, n - i, 0.0f), load_part(x + i, n - i, 0.0f)));
    }
}
