// Kernels::linear: selects the implementation of a product. Included inside a level's namespace, after all of them.

#if HAS_TILES
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif

// Widening a panel does not pay off for fewer rows.
constexpr int64_t kLeastWideRows = 24;

// Products of many rows with a bfloat16 matrix, on levels without a dot product of bfloat16. A few panels at a time are
// converted to float once, not once per few rows. The columns keep their order, so the results have the same bits.
static void product_widened(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first,
                            int64_t last) {
    const int64_t steps = ceil_div(w.cols, 2), stride = 2 * steps * kStepBytes;
    uint8_t* const room = thread_scratch(kTilePanels * stride);
    for (int64_t panel = first; panel < last; panel += kTilePanels) {
        const int64_t n = last - panel < kTilePanels ? last - panel : kTilePanels;
        for (int64_t p = 0; p < n; ++p) {
            const uint8_t* from = w.panels + (panel + p) * w.panel_stride;
            float* to = reinterpret_cast<float*>(room + p * stride);
            for (int64_t s = 0; s < steps; ++s, from += kStepBytes, to += 32) {
                const I16 pair = load_step(from);
                store(to, even_bf16(pair));
                store(to + 16, odd_bf16(pair));
            }
        }
        const Matrix wide{Format::f32, n * kPanelRows, 2 * steps, room, stride};
        Output out = y;
        out.data += panel * kPanelRows;
        if (out.bias) out.bias += panel * kPanelRows;
        product<Kind::f32>(wide, x, rows, out, 0, n);
    }
}

static void linear(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last) {
#if HAS_TILES
    if (x.type == InputType::bf16) return product_tiles(w, x, rows, y, first, last);
#endif
    if constexpr (kWords) {
        if (rows >= kLeastWordRows && w.format == Format::int8) return product_words<8>(w, x, rows, y, first, last);
        if (rows >= kLeastWordRows && w.format == Format::int4) return product_words<4>(w, x, rows, y, first, last);
    }
    switch (w.format) {
        case Format::f32:
            return product<Kind::f32>(w, x, rows, y, first, last);
        case Format::bf16:
            if constexpr (kDotBf16) {
                if (x.type == InputType::bf16) return product<Kind::dot_bf16>(w, x, rows, y, first, last);
            }
            if (kWidens && rows >= kLeastWideRows) return product_widened(w, x, rows, y, first, last);
            return product<Kind::bf16>(w, x, rows, y, first, last);
        case Format::int8:
            return product<Kind::int8>(w, x, rows, y, first, last);
        case Format::int4:
            return product<Kind::int4>(w, x, rows, y, first, last);
    }
}
