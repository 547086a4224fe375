// Products of a packed matrix with rows of inputs. Included inside a level's namespace, after functions.h.
//
// A tile is ROWS inputs times PANELS panels, with its sums in registers. Decoding has one row or a few and is
// memory-bound; prompts and windows have hundreds and are compute-bound. Both use the same tiles, and every sum adds
// its columns in the same order in all of them, so that a row's result does not depend on the batch.

// --- one function per kind of product: sums[r][p] over all columns

template <int ROWS, int PANELS>
INLINE void tile_f32(const uint8_t* w, int64_t panel, const uint8_t* x, int64_t row, int64_t cols,
                     F16 (&sums)[ROWS][PANELS]) {
    for (int64_t s = 0; s < cols; ++s) {
        F16 weights[PANELS];
        UNROLL for (int p = 0; p < PANELS; ++p) weights[p] = from_bits(load_step(w + p * panel + s * kStepBytes));
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const F16 input = from_bits(broadcast(x + r * row + 4 * s));
            UNROLL for (int p = 0; p < PANELS; ++p) sums[r][p] = fma(weights[p], input, sums[r][p]);
        }
    }
}

template <int ROWS, int PANELS>
INLINE void tile_bf16(const uint8_t* w, int64_t panel, const uint8_t* x, int64_t row, int64_t cols,
                      F16 (&sums)[ROWS][PANELS]) {
    for (int64_t s = 0; s < ceil_div(cols, 2); ++s) {
        I16 weights[PANELS];
        UNROLL for (int p = 0; p < PANELS; ++p) weights[p] = load_step(w + p * panel + s * kStepBytes);
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const F16 even = from_bits(broadcast(x + r * row + 8 * s));
            const F16 odd = from_bits(broadcast(x + r * row + 8 * s + 4));
            UNROLL for (int p = 0; p < PANELS; ++p) {
                sums[r][p] = fma(even_bf16(weights[p]), even, sums[r][p]);
                sums[r][p] = fma(odd_bf16(weights[p]), odd, sums[r][p]);
            }
        }
    }
}

template <int ROWS, int PANELS>
INLINE void tile_dot_bf16(const uint8_t* w, int64_t panel, const uint8_t* x, int64_t row, int64_t cols,
                          F16 (&sums)[ROWS][PANELS]) {
    for (int64_t s = 0; s < ceil_div(cols, 2); ++s) {
        I16 weights[PANELS];
        UNROLL for (int p = 0; p < PANELS; ++p) weights[p] = load_step(w + p * panel + s * kStepBytes);
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const I16 input = broadcast(x + r * row + 4 * s);
            UNROLL for (int p = 0; p < PANELS; ++p) sums[r][p] = dot_bf16(sums[r][p], weights[p], input);
        }
    }
}

// Add the integer products of a group of columns. WIDTH: bits per weight, 8 or 4.
template <int WIDTH, int ROWS, int PANELS>
INLINE void add_group(const uint8_t* steps, int64_t panel, const uint8_t* x, int64_t row, I16 (&parts)[ROWS][PANELS]) {
    constexpr int STEPS = WIDTH == 8 ? 8 : 4;
    UNROLL for (int s = 0; s < STEPS; ++s) {
        I16 first[PANELS], second[PANELS];
        UNROLL for (int p = 0; p < PANELS; ++p) {
            const I16 step = load_step(steps + p * panel + s * kStepBytes);
            first[p] = WIDTH == 8 ? step : low_halves(step);
            second[p] = WIDTH == 8 ? step : high_halves(step);
        }
        // With one or two rows the product is memory-bound, and int4's short panels end before the hardware prefetcher
        // detects them: prefetch the same step of the next panels. The other formats gain nothing from it.
        if constexpr (WIDTH == 4 && ROWS <= 2) {
            UNROLL for (int p = PANELS; p < 2 * PANELS; ++p) prefetch(steps + p * panel + s * kStepBytes);
        }
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const I16 input = broadcast(x + r * row + 4 * s);
            UNROLL for (int p = 0; p < PANELS; ++p) parts[r][p] = dot_int8(parts[r][p], first[p], input);
            if constexpr (WIDTH == 4) {
                const I16 other = broadcast(x + r * row + 16 + 4 * s);
                UNROLL for (int p = 0; p < PANELS; ++p) parts[r][p] = dot_int8(parts[r][p], second[p], other);
            }
        }
    }
}

template <int WIDTH, int ROWS, int PANELS>
INLINE void tile_groups(const uint8_t* w, int64_t panel, const Input& x, int64_t first_row, int64_t cols,
                        F16 (&sums)[ROWS][PANELS]) {
    constexpr int64_t GROUP_BYTES = WIDTH * 4 * kPanelRows;
    const uint8_t* steps = w + scale_bytes(cols);
    const uint8_t* inputs = static_cast<const uint8_t*>(x.data) + first_row * x.stride;
    const float* scales = x.scales + first_row * x.group_stride;
    const int32_t* totals = x.sums + first_row * x.group_stride;
    for (int64_t g = 0; g < ceil_div(cols, kGroup); ++g) {
        I16 parts[ROWS][PANELS];
        UNROLL for (int r = 0; r < ROWS; ++r) {
            // Weights are stored with an offset of half their range.
            const I16 offset = iall(-(1 << (WIDTH - 1)) * totals[r * x.group_stride + g]);
            UNROLL for (int p = 0; p < PANELS; ++p) parts[r][p] = offset;
        }
        add_group<WIDTH>(steps + g * GROUP_BYTES, panel, inputs + g * kGroup, x.stride, parts);
        F16 weight_scales[PANELS];
        UNROLL for (int p = 0; p < PANELS; ++p) weight_scales[p] =
            load_bf16(reinterpret_cast<const uint16_t*>(w + p * panel) + g * kPanelRows);
        UNROLL for (int r = 0; r < ROWS; ++r) {
            const F16 input_scale = all(scales[r * x.group_stride + g]);
            UNROLL for (int p = 0; p < PANELS; ++p) sums[r][p] =
                fma(to_float(parts[r][p]), mul(weight_scales[p], input_scale), sums[r][p]);
        }
    }
}

// --- from sums to results

INLINE void finish(F16 product, const float* bias, Epilogue then, float* y) {
    if (bias) product = add(product, load(bias));
    if (then == Epilogue::add) product = add(load(y), product);
    if (then == Epilogue::gelu) product = gelu(product);
    store(y, product);
}

// The kinds of products; all tiles of one product have the same.
enum class Kind { f32, bf16, dot_bf16, int8, int4 };

template <Kind KIND, int ROWS, int PANELS>
static void tile(const Matrix& w, const Input& x, int64_t first_row, const Output& y, int64_t first_panel) {
    const uint8_t* panels = w.panels + first_panel * w.panel_stride;
    const uint8_t* inputs = static_cast<const uint8_t*>(x.data) + first_row * x.stride;
    F16 sums[ROWS][PANELS];
    UNROLL for (int r = 0; r < ROWS; ++r) UNROLL for (int p = 0; p < PANELS; ++p) sums[r][p] = zero();
    if constexpr (KIND == Kind::f32) tile_f32(panels, w.panel_stride, inputs, x.stride, w.cols, sums);
    if constexpr (KIND == Kind::bf16) tile_bf16(panels, w.panel_stride, inputs, x.stride, w.cols, sums);
    if constexpr (KIND == Kind::dot_bf16) tile_dot_bf16(panels, w.panel_stride, inputs, x.stride, w.cols, sums);
    if constexpr (KIND == Kind::int8) tile_groups<8>(panels, w.panel_stride, x, first_row, w.cols, sums);
    if constexpr (KIND == Kind::int4) tile_groups<4>(panels, w.panel_stride, x, first_row, w.cols, sums);
    UNROLL for (int r = 0; r < ROWS; ++r) {
        float* out = y.data + (first_row + r) * y.stride + first_panel * kPanelRows;
        UNROLL for (int p = 0; p < PANELS; ++p) {
            finish(sums[r][p], y.bias ? y.bias + (first_panel + p) * kPanelRows : nullptr, y.then,
                   out + p * kPanelRows);
        }
    }
}

// Tiles of ROWS rows while they fit, then of fewer rows.
template <Kind KIND, int ROWS, int PANELS>
INLINE void tiles_down(const Matrix& w, const Input& x, int64_t row, int64_t end, const Output& y, int64_t panel) {
    for (; row + ROWS <= end; row += ROWS) tile<KIND, ROWS, PANELS>(w, x, row, y, panel);
    if constexpr (ROWS > 1) {
        constexpr int FEWER = ROWS > 4 ? 4 : ROWS > 2 ? 2 : 1;
        tiles_down<KIND, FEWER, PANELS>(w, x, row, end, y, panel);
    }
}

// Bytes of inputs that stay in the L2 cache while the panels are read.
constexpr int64_t kInputBytes = 384 * 1024;

template <Kind KIND>
static void product(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last) {
    // The integer sums of a group take as many registers as the float sums.
    constexpr bool GROUPS = KIND == Kind::int8 || KIND == Kind::int4;
    constexpr int ROWS = kTileRows, PANELS = GROUPS && kTilePanels > 1 ? kTilePanels / 2 : kTilePanels;
    const int64_t fitting = kInputBytes / (x.stride > 0 ? x.stride : 1) / ROWS * ROWS;
    const int64_t block = fitting < 4 * ROWS ? 4 * ROWS : fitting;
    for (int64_t row = 0; row < rows; row += block) {
        const int64_t end = rows < row + block ? rows : row + block;
        int64_t panel = first;
        for (; panel + PANELS <= last; panel += PANELS) tiles_down<KIND, ROWS, PANELS>(w, x, row, end, y, panel);
        for (; panel < last; ++panel) tiles_down<KIND, ROWS, 1>(w, x, row, end, y, panel);
    }
}
