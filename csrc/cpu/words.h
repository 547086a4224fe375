// Products of many rows with quantized weights in 16-bit words, for levels without a dot product of bytes.
//
// Included inside a level's namespace, after linear.h. A group of weights is widened to words once for a block of rows,
// and the rows once for a few panels; each step then takes one multiply-add of pairs. Integer sums are exact, and the
// groups' sums are added as in linear.h, so the results have the same bits.

constexpr int64_t kWordRows = 64;
constexpr int64_t kWordPanels = 4;
// Not worth it for fewer rows.
constexpr int64_t kLeastWordRows = 8;

// Sign-extend 64 inputs to words: the even bytes, then the odd bytes, 64 bytes each.
INLINE void widen_inputs(const uint8_t* x, uint8_t* words) {
    const I16 bytes = load_step(x);
    istore(reinterpret_cast<int32_t*>(words), even_bytes(bytes));
    istore(reinterpret_cast<int32_t*>(words + kStepBytes), odd_bytes(bytes));
}

// Zero-extend a group's stored weights to words: per step, the even bytes, then the odd bytes.
template <int WIDTH>
INLINE void widen_group(const uint8_t* steps, uint8_t* words) {
    const auto put = [words](int step, I16 bytes) {
        int32_t* const to = reinterpret_cast<int32_t*>(words + 2 * step * kStepBytes);
        istore(to, iand(bytes, iall(0x00ff00ff)));
        istore(to + 16, iand(shift_right<8>(bytes), iall(0x00ff00ff)));
    };
    constexpr int STEPS = WIDTH == 8 ? 8 : 4;
    for (int s = 0; s < STEPS; ++s) {
        const I16 step = load_step(steps + s * kStepBytes);
        put(s, WIDTH == 8 ? step : low_halves(step));
        if constexpr (WIDTH == 4) put(STEPS + s, high_halves(step));
    }
}

// parts[r] += one group of one panel: ROWS rows of words, 128 bytes apart, times the group's words.
template <int ROWS>
INLINE void add_words(const uint8_t* weights, const uint8_t* inputs, I16 (&parts)[ROWS]) {
    for (int s = 0; s < 8; ++s) {
        const I16 even = load_step(weights + 2 * s * kStepBytes), odd = load_step(weights + (2 * s + 1) * kStepBytes);
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const uint8_t* const x = inputs + 2 * r * kStepBytes + 4 * s;
            parts[r] = dot_words(dot_words(parts[r], even, broadcast(x)), odd, broadcast(x + kStepBytes));
        }
    }
}

template <int WIDTH, int ROWS>
INLINE void add_rows(const uint8_t* weights, F16 weight_scales, const uint8_t* inputs, const Input& x, int64_t row,
                     int64_t group, float* sums) {
    const float* const scales = x.scales + row * x.group_stride + group;
    const int32_t* const totals = x.sums + row * x.group_stride + group;
    I16 parts[ROWS];
    // Weights are stored with an offset of half their range.
    UNROLL for (int r = 0; r < ROWS; ++r) parts[r] = iall(-(1 << (WIDTH - 1)) * totals[r * x.group_stride]);
    add_words<ROWS>(weights, inputs, parts);
    UNROLL for (int r = 0; r < ROWS; ++r) {
        const F16 scale = mul(weight_scales, all(scales[r * x.group_stride]));
        store(sums + 16 * r, fma(to_float(parts[r]), scale, load(sums + 16 * r)));
    }
}

template <int WIDTH>
static void product_words(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last) {
    constexpr int64_t GROUP_BYTES = WIDTH * 4 * kPanelRows;
    alignas(64) uint8_t inputs[kWordRows * 2 * kStepBytes];
    alignas(64) uint8_t weights[16 * kStepBytes];
    alignas(64) float sums[kWordPanels * kWordRows * 16];
    const int64_t groups = ceil_div(w.cols, kGroup);
    for (int64_t row = 0; row < rows; row += kWordRows)
        for (int64_t panel = first; panel < last; panel += kWordPanels) {
            const int64_t n = rows - row < kWordRows ? rows - row : kWordRows;
            const int64_t n_panels = last - panel < kWordPanels ? last - panel : kWordPanels;
            std::memset(sums, 0, sizeof sums);
            for (int64_t g = 0; g < groups; ++g) {
                if (g % 2 == 0)
                    for (int64_t r = 0; r < n; ++r)
                        widen_inputs(static_cast<const uint8_t*>(x.data) + (row + r) * x.stride + g * kGroup,
                                     inputs + 2 * r * kStepBytes);
                for (int64_t p = 0; p < n_panels; ++p) {
                    const uint8_t* const from = w.panels + (panel + p) * w.panel_stride;
                    widen_group<WIDTH>(from + scale_bytes(w.cols) + g * GROUP_BYTES, weights);
                    const F16 scales = load_bf16(reinterpret_cast<const uint16_t*>(from) + g * kPanelRows);
                    float* const to = sums + p * kWordRows * 16;
                    const uint8_t* const half = inputs + g % 2 * 32;
                    int64_t r = 0;
                    for (; r + kWordTile <= n; r += kWordTile)
                        add_rows<WIDTH, kWordTile>(weights, scales, half + 2 * r * kStepBytes, x, row + r, g,
                                                   to + 16 * r);
                    for (; r < n; ++r)
                        add_rows<WIDTH, 1>(weights, scales, half + 2 * r * kStepBytes, x, row + r, g, to + 16 * r);
                }
            }
            for (int64_t p = 0; p < n_panels; ++p)
                for (int64_t r = 0; r < n; ++r)
                    finish(load(sums + (p * kWordRows + r) * 16), y.bias ? y.bias + (panel + p) * kPanelRows : nullptr,
                           y.then, y.data + (row + r) * y.stride + (panel + p) * kPanelRows);
        }
}
