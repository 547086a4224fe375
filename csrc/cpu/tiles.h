// Products of many rows with AMX tiles: 32 rows of inputs times 2 panels at a time, in bfloat16.
//
// Included inside a level's namespace, after linear.h and simd_tiles.h. 16 steps of a bfloat16 panel (32 columns) have
// the layout of a tile. Quantized panels are converted to bfloat16 once for all rows. Each output sums its columns in
// the same order for any number of rows, so that a row's result does not depend on the batch.

constexpr int64_t kTileCols = 32;
constexpr int64_t kTileBytes = 16 * kStepBytes;

INLINE TileShapes shapes_of(int64_t rows) {
    const int64_t first = rows < 16 ? rows : 16;
    // Registers 0 to 3: sums (row block, panel); 4 and 5: inputs; 6 and 7: weights.
    const int64_t n_rows[] = {first, first, rows - first, rows - first, first, rows - first, 16, 16};
    TileShapes shapes;
    for (int t = 0; t < 8; ++t) {
        shapes.rows[t] = uint8_t(n_rows[t]);
        shapes.bytes[t] = n_rows[t] ? uint16_t(kStepBytes) : 0;
    }
    return shapes;
}

// Rounds to nearest even; the bits of the bfloat16 are in the upper half.
INLINE I16 round_bf16(F16 a) { return iadd(iadd(bits(a), iall(0x7fff)), iand(shift_right<16>(bits(a)), iall(1))); }

// Write two steps of a bfloat16 panel from four columns of quantized weights: a byte each, `offset` too large.
INLINE void put_columns(I16 bytes, int32_t offset, F16 scale, uint8_t* to) {
    const I16 ones = iall(255);
    const auto value = [&](I16 byte) { return round_bf16(mul(to_float(isub(byte, iall(offset))), scale)); };
    const I16 upper = iall(int32_t(0xffff0000u));
    const I16 c0 = value(iand(bytes, ones)), c1 = value(iand(shift_right<8>(bytes), ones));
    const I16 c2 = value(iand(shift_right<16>(bytes), ones)), c3 = value(shift_right<24>(bytes));
    istore(reinterpret_cast<int32_t*>(to), iadd(shift_right<16>(c0), iand(c1, upper)));
    istore(reinterpret_cast<int32_t*>(to + kStepBytes), iadd(shift_right<16>(c2), iand(c3, upper)));
}

// Convert a quantized panel to tiles of bfloat16.
template <int WIDTH>
static void dequantize(const uint8_t* panel, int64_t cols, uint8_t* to) {
    constexpr int STEPS = WIDTH == 8 ? 8 : 4;
    const uint8_t* step = panel + scale_bytes(cols);
    for (int64_t g = 0; g < ceil_div(cols, kGroup); ++g, to += kTileBytes) {
        const F16 scale = load_bf16(reinterpret_cast<const uint16_t*>(panel) + g * kPanelRows);
        for (int s = 0; s < STEPS; ++s, step += kStepBytes) {
            const I16 bytes = load_step(step);
            put_columns(WIDTH == 8 ? bytes : low_halves(bytes), 1 << (WIDTH - 1), scale, to + 2 * s * kStepBytes);
            if constexpr (WIDTH == 4) put_columns(high_halves(bytes), 8, scale, to + (2 * STEPS + 2 * s) * kStepBytes);
        }
    }
}

// One panel as tiles: in place, or in `room` if quantized. An incomplete last tile is copied to `last`.
struct TiledPanel {
    const uint8_t* tiles;
    alignas(64) uint8_t last[kTileBytes];
    bool last_apart;

    const uint8_t* tile(int64_t i, int64_t n) const { return last_apart && i == n - 1 ? last : tiles + i * kTileBytes; }
};

static void take_panel(const Matrix& w, int64_t panel, uint8_t* room, TiledPanel& to) {
    const uint8_t* const from = w.panels + panel * w.panel_stride;
    to.last_apart = false;
    if (w.format == Format::bf16) {
        to.tiles = from;
        const int64_t rest = w.cols % kTileCols;
        if (rest) {
            // The memory after the panel may hold NaN, and zero times NaN is NaN: zero the rest of the tile.
            to.last_apart = true;
            std::memset(to.last, 0, sizeof to.last);
            std::memcpy(to.last, from + w.cols / kTileCols * kTileBytes, size_t(ceil_div(rest, 2) * kStepBytes));
        }
        return;
    }
    to.tiles = room;
    w.format == Format::int8 ? dequantize<8>(from, w.cols, room) : dequantize<4>(from, w.cols, room);
}

// Sums of one block of rows: ROW_TILES times 16 rows, PANELS panels.
template <int ROW_TILES, int PANELS>
INLINE void add_tiles(const TiledPanel (&panels)[2], const uint8_t* inputs, int64_t stride, int64_t n, float* sums) {
    zero_tile<0>();
    if constexpr (PANELS > 1) zero_tile<1>();
    if constexpr (ROW_TILES > 1) zero_tile<2>();
    if constexpr (ROW_TILES > 1 && PANELS > 1) zero_tile<3>();
    for (int64_t i = 0; i < n; ++i) {
        load_tile<6>(panels[0].tile(i, n), kStepBytes);
        load_tile<4>(inputs + i * kStepBytes, stride);
        dot_tiles<0, 4, 6>();
        if constexpr (PANELS > 1) {
            load_tile<7>(panels[1].tile(i, n), kStepBytes);
            dot_tiles<1, 4, 7>();
        }
        if constexpr (ROW_TILES > 1) {
            load_tile<5>(inputs + 16 * stride + i * kStepBytes, stride);
            dot_tiles<2, 5, 6>();
            if constexpr (PANELS > 1) dot_tiles<3, 5, 7>();
        }
    }
    constexpr int64_t kStride = 2 * kStepBytes;
    store_tile<0>(sums, kStride);
    if constexpr (PANELS > 1) store_tile<1>(sums + 16, kStride);
    if constexpr (ROW_TILES > 1) store_tile<2>(sums + 16 * 32, kStride);
    if constexpr (ROW_TILES > 1 && PANELS > 1) store_tile<3>(sums + 16 * 32 + 16, kStride);
}

static void product_tiles(const Matrix& w, const Input& x, int64_t rows, const Output& y, int64_t first, int64_t last) {
    const int64_t n = ceil_div(w.cols, kTileCols);
    uint8_t* const room = is_quantized(w.format) ? thread_scratch(2 * n * kTileBytes) : nullptr;
    alignas(64) float sums[32 * 32];
    TiledPanel panels[2];
    int64_t shaped = 0;
    for (int64_t panel = first; panel < last; panel += 2) {
        const int64_t n_panels = last - panel < 2 ? 1 : 2;
        for (int64_t p = 0; p < n_panels; ++p) take_panel(w, panel + p, room + p * n * kTileBytes, panels[p]);
        for (int64_t row = 0; row < rows; row += 32) {
            const int64_t n_rows = rows - row < 32 ? rows - row : 32;
            if (n_rows != shaped) begin_tiles(shapes_of(n_rows));
            shaped = n_rows;
            const uint8_t* const inputs = static_cast<const uint8_t*>(x.data) + row * x.stride;
            if (n_rows > 16 && n_panels > 1) add_tiles<2, 2>(panels, inputs, x.stride, n, sums);
            if (n_rows > 16 && n_panels == 1) add_tiles<2, 1>(panels, inputs, x.stride, n, sums);
            if (n_rows <= 16 && n_panels > 1) add_tiles<1, 2>(panels, inputs, x.stride, n, sums);
            if (n_rows <= 16 && n_panels == 1) add_tiles<1, 1>(panels, inputs, x.stride, n, sums);
            for (int64_t r = 0; r < n_rows; ++r)
                for (int64_t p = 0; p < n_panels; ++p)
                    finish(load(sums + 32 * r + 16 * p), y.bias ? y.bias + (panel + p) * kPanelRows : nullptr, y.then,
                           y.data + (row + r) * y.stride + (panel + p) * kPanelRows);
        }
    }
    if (shaped) end_tiles();
}
