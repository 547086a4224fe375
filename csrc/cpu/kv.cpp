#include "barkfast/kv.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace barkfast {

namespace {

// Rounded to nearest even; NaN stays NaN.
inline uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return uint16_t(x == x ? rounded : 0x7fc0);
}

// Write position `row` of a panel of keys, [head_dim / 2][16][2].
void write_key(uint16_t* panel, int64_t row, int64_t head_dim, const float* k) {
    for (int64_t i = 0; i < head_dim; i += 2) {
        panel[i * 16 + row * 2] = to_bf16(k[i]);
        panel[i * 16 + row * 2 + 1] = to_bf16(k[i + 1]);
    }
}

// Write position `row` of a panel of keys, [head_dim][16].
void write_key(float* panel, int64_t row, int64_t head_dim, const float* k) {
    for (int64_t i = 0; i < head_dim; ++i) panel[i * 16 + row] = k[i];
}

// Write the second position of a step of each panel of values, [16][2]; the first one is kept.
void write_second_value(uint16_t* step, int64_t panel_numbers, int64_t head_dim, const float* v) {
    for (int64_t d = 0; d < head_dim; d += 16, step += panel_numbers)
        for (int64_t i = 0; i < 16; ++i) step[2 * i + 1] = to_bf16(v[d + i]);
}

// Write both positions of a step of each panel of values; zeros if there is no second one.
void write_values(uint16_t* step, int64_t panel_numbers, int64_t head_dim, const float* first, const float* second) {
    for (int64_t d = 0; d < head_dim; d += 16, step += panel_numbers)
        for (int64_t i = 0; i < 16; ++i) {
            step[2 * i] = to_bf16(first[d + i]);
            step[2 * i + 1] = second ? to_bf16(second[d + i]) : uint16_t(0);
        }
}

// Quantize the n numbers of a position to bytes, each passed to store(i, byte). Returns the scale.
template <class Store>
float quantize(const float* x, int64_t n, const Store& store) {
    // 0 times infinity or NaN is NaN, and the sum stays NaN.
    float bound = 0, zero = 0;
    for (int64_t i = 0; i < n; ++i) {
        bound = std::max(bound, std::fabs(x[i]));
        zero += x[i] * 0.0f;
    }
    const bool finite = zero == 0.0f;
    // Numbers this small count as 0, because 127 / bound would be infinite.
    const float factor = !finite || bound < 1e-30f ? 0.0f : 127.0f / bound;
    // Round to nearest even: the sum has no bits for a fraction.
    for (int64_t i = 0; i < n; ++i) {
        const float sum = (finite ? x[i] * factor : 0.0f) + 12582912.0f;
        int32_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        store(i, uint8_t(bits));
    }
    return finite ? (factor == 0.0f ? 0.0f : bound / 127.0f) : std::numeric_limits<float>::quiet_NaN();
}

// Bytes of a panel of 16 rows.
int64_t panel_of(Format format, int64_t cols) {
    return format == Format::int8 ? kPanelRows * cols : panel_bytes(format, cols);
}

}  // namespace

Matrix KvCache::keys(int64_t layer, int64_t slot, int64_t head) const {
    return {format,
            capacity,
            head_dim,
            key_data + block_offset(layer, slot, head),
            panel_of(format, head_dim),
            key_scales(layer, slot, head)};
}

Matrix KvCache::values(int64_t layer, int64_t slot, int64_t head) const {
    return {format,
            head_dim,
            capacity,
            value_data + block_offset(layer, slot, head),
            panel_of(format, capacity),
            value_scales(layer, slot, head)};
}

void KvCache::append(int64_t layer, int64_t slot, int64_t head, int64_t position, const float* k,
                     const float* v) const {
    write(layer, slot, head, position, 1, k, v, 0);
}

void KvCache::write(int64_t layer, int64_t slot, int64_t head, int64_t first, int64_t n, const float* k, const float* v,
                    int64_t stride) const {
    const int64_t offset = block_offset(layer, slot, head), end = first + n;
    if (format == Format::f32) {
        float* keys = reinterpret_cast<float*>(key_data + offset);
        float* values = reinterpret_cast<float*>(value_data + offset);
        for (int64_t p = first; p < end; ++p, k += stride, v += stride) {
            write_key(keys + p / 16 * 16 * head_dim, p % 16, head_dim, k);
            for (int64_t d = 0; d < head_dim; d += 16)
                std::memcpy(values + d * capacity + p * 16, v + d, 16 * sizeof(float));
        }
        return;
    }
    if (format == Format::int8) {
        float *key_scale = key_scales(layer, slot, head), *value_scale = value_scales(layer, slot, head);
        uint8_t *keys = key_data + offset, *values = value_data + offset;
        for (int64_t p = first; p < end; ++p, k += stride, v += stride) {
            uint8_t* const key = keys + p / 16 * 16 * head_dim + p % 16;
            key_scale[p] = quantize(k, head_dim, [&](int64_t d, uint8_t byte) { key[d * 16] = byte; });
            value_scale[p] = quantize(
                v, head_dim, [&](int64_t d, uint8_t byte) { values[d / 16 * 16 * capacity + p * 16 + d % 16] = byte; });
        }
        return;
    }
    uint16_t* keys = reinterpret_cast<uint16_t*>(key_data + offset);
    uint16_t* values = reinterpret_cast<uint16_t*>(value_data + offset);
    for (int64_t p = first; p < end; ++p, k += stride) write_key(keys + p / 16 * 16 * head_dim, p % 16, head_dim, k);
    int64_t p = first;
    if (p % 2 && p < end) {
        write_second_value(values + (p - 1) * 16, 16 * capacity, head_dim, v);
        ++p, v += stride;
    }
    for (; p < end; p += 2, v += 2 * stride)
        write_values(values + p * 16, 16 * capacity, head_dim, v, p + 1 < end ? v + stride : nullptr);
}

}  // namespace barkfast
