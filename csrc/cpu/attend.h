// Attention of one query over packed keys and values. Both are read once, sequentially, at memory bandwidth.
//
// An int8 cache has sixteen numbers per step and a scale per position: see kv.h. Included inside a level's namespace,
// after rows.h. The contract is in kernels.h.

// Prefetch distance in each panel of values, in bytes.
constexpr int64_t kAhead = 16 * kStepBytes;
// Bytes of an int8 step; four of them share a cache line.
constexpr int64_t kByteStep = 16;

// Dot products of the query with the positions of P panels of keys. `more`: further panels follow, so prefetch them.
template <int P>
INLINE void score_panels(const Matrix& keys, int64_t first, bool more, const float* q, float* scores) {
    const uint8_t* step = keys.panels + first * keys.panel_stride;
    const int64_t ahead = more ? P * keys.panel_stride : 0;
    F16 sums[P];
    UNROLL for (int p = 0; p < P; ++p) sums[p] = zero();
    if (keys.format == Format::int8) {
        for (int64_t c = 0; c < keys.cols; c += 4, step += 4 * kByteStep) {
            UNROLL for (int p = 0; p < P; ++p) {
                const uint8_t* const from = step + p * keys.panel_stride;
                prefetch(from + ahead);
                UNROLL for (int i = 0; i < 4; ++i) sums[p] =
                    fma(load_int8(from + i * kByteStep), all(q[c + i]), sums[p]);
            }
        }
        UNROLL for (int p = 0; p < P; ++p) sums[p] = mul(sums[p], load(keys.scales + 16 * (first + p)));
    } else if (keys.format == Format::f32) {
        for (int64_t c = 0; c < keys.cols; ++c, step += kStepBytes) {
            const F16 x = all(q[c]);
            UNROLL for (int p = 0; p < P; ++p) {
                prefetch(step + p * keys.panel_stride + ahead);
                sums[p] = fma(from_bits(load_step(step + p * keys.panel_stride)), x, sums[p]);
            }
        }
    } else {
        for (int64_t c = 0; c < keys.cols; c += 2, step += kStepBytes) {
            const F16 even = all(q[c]), odd = all(q[c + 1]);
            UNROLL for (int p = 0; p < P; ++p) {
                prefetch(step + p * keys.panel_stride + ahead);
                const I16 pair = load_step(step + p * keys.panel_stride);
                sums[p] = fma(odd_bf16(pair), odd, fma(even_bf16(pair), even, sums[p]));
            }
        }
    }
    UNROLL for (int p = 0; p < P; ++p) store(scores + 16 * (first + p), sums[p]);
}

// P panels of the output: the sum of the values of n positions, weighted by p.
template <int P>
INLINE void mix_panels(const Matrix& values, int64_t first, int64_t n, const float* p, float* out) {
    const uint8_t* step = values.panels + first * values.panel_stride;
    const int64_t steps = values.format == Format::f32 ? n : n / 2;
    F16 sums[P];
    UNROLL for (int i = 0; i < P; ++i) sums[i] = zero();
    if (values.format == Format::int8) {
        for (int64_t s = 0; s < n; ++s, step += kByteStep) {
            const F16 x = all(p[s]);
            UNROLL for (int i = 0; i < P; ++i) {
                const uint8_t* const from = step + i * values.panel_stride;
                if (s % 4 == 0 && s + kAhead / kByteStep < n) prefetch(from + kAhead);
                sums[i] = fma(load_int8(from), x, sums[i]);
            }
        }
        UNROLL for (int i = 0; i < P; ++i) store(out + 16 * (first + i), sums[i]);
        return;
    }
    for (int64_t s = 0; s < steps; ++s, step += kStepBytes) {
        const int64_t ahead = s + kAhead / kStepBytes < steps ? kAhead : 0;
        if (values.format == Format::f32) {
            const F16 x = all(p[s]);
            UNROLL for (int i = 0; i < P; ++i) {
                prefetch(step + i * values.panel_stride + ahead);
                sums[i] = fma(from_bits(load_step(step + i * values.panel_stride)), x, sums[i]);
            }
        } else {
            const F16 even = all(p[2 * s]), odd = all(p[2 * s + 1]);
            UNROLL for (int i = 0; i < P; ++i) {
                prefetch(step + i * values.panel_stride + ahead);
                const I16 pair = load_step(step + i * values.panel_stride);
                sums[i] = fma(odd_bf16(pair), odd, fma(even_bf16(pair), even, sums[i]));
            }
        }
    }
    if (values.format == Format::bf16 && n % 2) {
        // The second half of the last pair is not a position yet. Do not use it: 0 times NaN is NaN.
        const F16 even = all(p[n - 1]);
        UNROLL for (int i = 0; i < P; ++i) {
            sums[i] = fma(even_bf16(load_step(step + i * values.panel_stride)), even, sums[i]);
        }
    }
    UNROLL for (int i = 0; i < P; ++i) store(out + 16 * (first + i), sums[i]);
}

static void attend(const Matrix& keys, const Matrix& values, int64_t n, const float* q, float scale, float* out,
                   float* scores) {
    // Four panels at a time, for four independent sums. The number of panels changes no sum.
    const int64_t key_panels = panel_count(n), value_panels = panel_count(values.rows);
    int64_t panel = 0;
    for (; panel + 4 <= key_panels; panel += 4) score_panels<4>(keys, panel, panel + 4 < key_panels, q, scores);
    if (key_panels - panel == 3) score_panels<3>(keys, panel, false, q, scores);
    if (key_panels - panel == 2) score_panels<2>(keys, panel, false, q, scores);
    if (key_panels - panel == 1) score_panels<1>(keys, panel, false, q, scores);
    softmax(scores, n, n, scale);
    if (values.format == Format::int8)
        for (int64_t s = 0; s < n; s += 16) store(scores + s, mul(load(scores + s), load(values.scales + s)));
    for (panel = 0; panel + 4 <= value_panels; panel += 4) mix_panels<4>(values, panel, n, scores, out);
    for (; panel < value_panels; ++panel) mix_panels<1>(values, panel, n, scores, out);
}
