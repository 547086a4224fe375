// Kernels::linear: which of the ways to multiply a product takes. Included inside a level's namespace, after them.

#ifdef HAS_TILES
constexpr bool kTiles = true;
#else
constexpr bool kTiles = false;
#endif

static void linear(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last) {
#ifdef HAS_TILES
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
            return product<Kind::bf16>(w, x, rows, y, first, last);
        case Format::int8:
            return product<Kind::int8>(w, x, rows, y, first, last);
        case Format::int4:
            return product<Kind::int4>(w, x, rows, y, first, last);
    }
}
