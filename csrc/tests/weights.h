// Networks of random weights, in any format.
#pragma once

#include <string>
#include <vector>

#include "barkfast/kv.h"
#include "barkfast/network.h"
#include "barkfast/pack.h"
#include "buffer.h"
#include "check.h"

namespace tests {

// A GPT, or a fine network of three codebooks that predicts the last two. Matrices have `format`, the rest is float.
class Weights {
  public:
    Weights(barkfast::Format format, const barkfast::NetworkSize& size, int64_t ids)
        : format_(format), size_(size), ids_(ids) {}

    // Call once. The network is valid as long as this object.
    barkfast::Network build(bool fine) {
        const int64_t width = size_.n_embd;
        table("transformer.wpe.weight", size_.block_size);
        for (int i = 0; fine && i < 3; ++i) table("transformer.wtes." + std::to_string(i) + ".weight", ids_);
        for (int i = 0; fine && i < 2; ++i) matrix("lm_heads." + std::to_string(i) + ".weight", ids_, width);
        if (!fine) table("transformer.wte.weight", ids_), matrix("lm_head.weight", ids_, width);
        vector("transformer.ln_f.weight");
        for (int64_t layer = 0; layer < size_.n_layer; ++layer) {
            const std::string h = "transformer.h." + std::to_string(layer);
            for (const char* norm : {".ln_1", ".ln_2"}) vector(h + norm + ".weight");
            matrix(h + ".attn.c_attn.weight", 3 * width, width);
            matrix(h + ".attn.c_proj.weight", width, width);
            matrix(h + ".mlp.c_fc.weight", 4 * width, width);
            matrix(h + ".mlp.c_proj.weight", width, 4 * width);
        }
        return barkfast::build_network(size_, entries_);
    }

  private:
    barkfast::Source draw(int64_t rows, int64_t cols) {
        sources_.push_back(numbers_.floats(rows * cols, -0.3f, 0.3f));
        return {barkfast::SourceType::f32, rows, cols, sources_.back().data()};
    }
    uint8_t* add(const std::string& name, const char* kind, barkfast::Format format, int64_t rows, int64_t cols,
                 int64_t bytes) {
        memory_.emplace_back(bytes);
        entries_.push_back({name, kind, int(format), rows, cols, memory_.back().data()});
        return memory_.back().data();
    }
    void matrix(const std::string& name, int64_t rows, int64_t cols) {
        uint8_t* panels = add(name, "matrix", format_, rows, cols, barkfast::packed_bytes(format_, rows, cols));
        barkfast::pack_matrix(draw(rows, cols), format_, panels, 2);
    }
    void table(const std::string& name, int64_t rows) {
        uint8_t* data = add(name, "table", barkfast::Format::f32, rows, size_.n_embd, rows * size_.n_embd * 4);
        barkfast::pack_table(draw(rows, size_.n_embd), barkfast::Format::f32, data, 2);
    }
    void vector(const std::string& name) {
        uint8_t* data = add(name, "vector", barkfast::Format::f32, size_.n_embd, 1, size_.n_embd * 4);
        barkfast::pack_vector(draw(size_.n_embd, 1), reinterpret_cast<float*>(data));
    }

    barkfast::Format format_;
    barkfast::NetworkSize size_;
    int64_t ids_;
    Numbers numbers_{5};
    std::vector<std::vector<float>> sources_;
    std::vector<barkfast::Buffer<uint8_t>> memory_;
    std::vector<barkfast::Entry> entries_;
};

// A cache for a network, stored in `memory`.
inline barkfast::KvCache cache_of(const barkfast::Network& network, int64_t n_slots,
                                  barkfast::Buffer<uint8_t>& memory) {
    barkfast::KvCache cache;
    cache.format = network.cache_format();
    cache.n_layer = network.n_layer;
    cache.n_slots = n_slots;
    cache.n_head = network.n_head;
    cache.head_dim = network.head_dim();
    cache.capacity = barkfast::cache_capacity(network.block_size);
    memory = barkfast::Buffer<uint8_t>(2 * cache.total_bytes());
    cache.key_data = memory.data();
    cache.value_data = memory.data() + cache.total_bytes();
    return cache;
}

}  // namespace tests
