// The KV cache, stored as packed matrices (matrix.h) that the attention kernel reads directly.
#pragma once

#include <cstdint>

#include "barkfast/matrix.h"

namespace barkfast {

// Capacity, in positions, of a cache for `block_size` positions.
constexpr int64_t cache_capacity(int64_t block_size) { return round_up(block_size, kPanelRows); }

// Per layer, slot and head: keys (capacity, head_dim), with 16 positions per panel, and values (head_dim, capacity),
// with 16 dimensions per panel. Each is one block of capacity * head_dim numbers; blocks are ordered by layer, slot,
// head.
//
// In bfloat16, two positions share a step of the values. Writing an even position also writes zeros for the next one,
// so that a step never contains uninitialized memory when it is read.
//
// In int8, each position has one scale per head. A step is 16 signed bytes: of one dimension in keys, of one position
// in values. A block's scales, `capacity` floats, follow its numbers. A scale is NaN if a number of the position is not
// finite.
struct KvCache {
    // f32, bf16 or int8.
    Format format = Format::f32;
    int64_t n_layer = 0;
    int64_t n_slots = 0;
    int64_t n_head = 0;
    // A multiple of 16.
    int64_t head_dim = 0;
    // Positions; a multiple of 16.
    int64_t capacity = 0;
    uint8_t* key_data = nullptr;
    uint8_t* value_data = nullptr;

    Matrix keys(int64_t layer, int64_t slot, int64_t head) const;
    Matrix values(int64_t layer, int64_t slot, int64_t head) const;

    // Scales of a block's positions in int8; null in other formats.
    float* key_scales(int64_t layer, int64_t slot, int64_t head) const {
        return scales_of(key_data + block_offset(layer, slot, head));
    }
    float* value_scales(int64_t layer, int64_t slot, int64_t head) const {
        return scales_of(value_data + block_offset(layer, slot, head));
    }

    // Store one position; k and v: head_dim floats.
    void append(int64_t layer, int64_t slot, int64_t head, int64_t position, const float* k, const float* v) const;

    // Store positions first .. first + n - 1; row i of k and of v is at k + i * stride and v + i * stride. Threads may
    // write different heads concurrently, and different ranges of one head if `first` is even.
    void write(int64_t layer, int64_t slot, int64_t head, int64_t first, int64_t n, const float* k, const float* v,
               int64_t stride) const;

    int64_t number_bytes() const { return format == Format::f32 ? 4 : format == Format::bf16 ? 2 : 1; }
    // Bytes of one position's scale.
    int64_t scale_bytes() const { return format == Format::int8 ? int64_t(sizeof(float)) : 0; }
    // Bytes of the keys of one layer, slot and head; its values take as many.
    int64_t block_bytes() const { return capacity * (head_dim * number_bytes() + scale_bytes()); }
    // Bytes of all keys; all values take as many.
    int64_t total_bytes() const { return n_layer * n_slots * n_head * block_bytes(); }

  private:
    float* scales_of(uint8_t* block) const {
        return format == Format::int8 ? reinterpret_cast<float*>(block + capacity * head_dim) : nullptr;
    }
    int64_t block_offset(int64_t layer, int64_t slot, int64_t head) const {
        return ((layer * n_slots + slot) * n_head + head) * block_bytes();
    }
};

}  // namespace barkfast
