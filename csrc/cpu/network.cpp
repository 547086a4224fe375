#include "barkfast/network.h"

#include <cstring>
#include <stdexcept>
#include <unordered_map>

namespace barkfast {

namespace {

float widen(uint16_t x) {
    const uint32_t bits = uint32_t(x) << 16;
    float y;
    std::memcpy(&y, &bits, 4);
    return y;
}

std::string shape_text(int64_t rows, int64_t cols) {
    return "(" + std::to_string(rows) + ", " + std::to_string(cols) + ")";
}

// The entries by name, with checked access.
class Entries {
  public:
    explicit Entries(const std::vector<Entry>& entries) {
        for (const Entry& entry : entries) {
            if (!entry.data) throw std::invalid_argument("weights: " + entry.name + " has no memory");
            by_name_[entry.name] = &entry;
        }
    }

    bool has(const std::string& name) const { return by_name_.count(name) != 0; }

    // `rows` 0 means any number.
    const Entry& find(const std::string& name, const char* kind, int64_t rows, int64_t cols) const {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) throw std::invalid_argument("weights: " + name + " is missing");
        const Entry& entry = *found->second;
        if (entry.kind != kind)
            throw std::invalid_argument("weights: " + name + " is a " + entry.kind + "; expected a " + kind);
        if ((rows && entry.rows != rows) || entry.rows < 1 || entry.cols != cols)
            throw std::invalid_argument("weights: " + name + " is " + shape_text(entry.rows, entry.cols) +
                                        "; expected " +
                                        (rows ? shape_text(rows, cols) : "(any, " + std::to_string(cols) + ")"));
        return entry;
    }

    Matrix matrix(const std::string& name, int64_t rows, int64_t cols) const {
        const Entry& entry = find(name, "matrix", rows, cols);
        if (entry.format < 0 || entry.format > int(Format::int4))
            throw std::invalid_argument("weights: " + name + " has format " + std::to_string(entry.format) +
                                        "; expected 0 (f32), 1 (bf16), 2 (int8) or 3 (int4)");
        const Format format = Format(entry.format);
        return {format, entry.rows, entry.cols, static_cast<const uint8_t*>(entry.data),
                panel_bytes(format, entry.cols)};
    }

    const float* vector(const std::string& name, int64_t n) const {
        return static_cast<const float*>(find(name, "vector", n, 1).data);
    }

    const float* optional_vector(const std::string& name, int64_t n) const {
        return has(name) ? vector(name, n) : nullptr;
    }

    Table table(const std::string& name, int64_t rows, int64_t cols) const {
        const Entry& entry = find(name, "table", rows, cols);
        if (entry.format != 0 && entry.format != 1)
            throw std::invalid_argument("weights: " + name + " is a table of format " + std::to_string(entry.format) +
                                        "; expected 0 (f32) or 1 (bf16)");
        return {entry.data, entry.format == 1, entry.rows, entry.cols};
    }

  private:
    std::unordered_map<std::string, const Entry*> by_name_;
};

LayerWeights find_layer(const Entries& entries, const std::string& layer, int64_t width) {
    LayerWeights w;
    w.norm1_weight = entries.vector(layer + "ln_1.weight", width);
    w.norm1_bias = entries.optional_vector(layer + "ln_1.bias", width);
    w.qkv = entries.matrix(layer + "attn.c_attn.weight", 3 * width, width);
    w.qkv_bias = entries.optional_vector(layer + "attn.c_attn.bias", 3 * width);
    w.out = entries.matrix(layer + "attn.c_proj.weight", width, width);
    w.out_bias = entries.optional_vector(layer + "attn.c_proj.bias", width);
    w.norm2_weight = entries.vector(layer + "ln_2.weight", width);
    w.norm2_bias = entries.optional_vector(layer + "ln_2.bias", width);
    w.fc = entries.matrix(layer + "mlp.c_fc.weight", 4 * width, width);
    w.fc_bias = entries.optional_vector(layer + "mlp.c_fc.bias", 4 * width);
    w.proj = entries.matrix(layer + "mlp.c_proj.weight", width, 4 * width);
    w.proj_bias = entries.optional_vector(layer + "mlp.c_proj.bias", width);
    w.format = w.qkv.format;
    for (const Matrix* m : {&w.out, &w.fc, &w.proj})
        if (m->format != w.format)
            throw std::invalid_argument("weights: the matrices of " + layer +
                                        "* differ in format; pack all of a layer in the same one");
    return w;
}

void check_size(const NetworkSize& size) {
    if (size.n_layer < 1 || size.n_head < 1 || size.n_embd < 1 || size.block_size < 1 ||
        size.n_embd % (16 * size.n_head))
        throw std::invalid_argument(
            "a network of n_layer=" + std::to_string(size.n_layer) + ", n_head=" + std::to_string(size.n_head) +
            ", n_embd=" + std::to_string(size.n_embd) + ", block_size=" + std::to_string(size.block_size) +
            " does not fit: all must be positive, and a head's width, n_embd / n_head, a multiple of 16");
}

}  // namespace

void Table::read(int64_t row, float* y) const {
    if (!bf16) {
        std::memcpy(y, static_cast<const float*>(data) + row * cols, size_t(cols) * sizeof(float));
        return;
    }
    const uint16_t* x = static_cast<const uint16_t*>(data) + row * cols;
    for (int64_t i = 0; i < cols; ++i) y[i] = widen(x[i]);
}

void Table::add(int64_t row, float* y) const {
    if (!bf16) {
        const float* x = static_cast<const float*>(data) + row * cols;
        for (int64_t i = 0; i < cols; ++i) y[i] += x[i];
        return;
    }
    const uint16_t* x = static_cast<const uint16_t*>(data) + row * cols;
    for (int64_t i = 0; i < cols; ++i) y[i] += widen(x[i]);
}

Network build_network(const NetworkSize& size, const std::vector<Entry>& all) {
    check_size(size);
    const Entries entries(all);
    const int64_t width = size.n_embd;
    Network network;
    static_cast<NetworkSize&>(network) = size;
    if (entries.has("transformer.wtes.0.weight")) {
        for (int i = 0; entries.has("transformer.wtes." + std::to_string(i) + ".weight"); ++i)
            network.tokens.push_back(entries.table("transformer.wtes." + std::to_string(i) + ".weight", 0, width));
        network.heads.push_back(entries.matrix("lm_heads.0.weight", 0, width));
        for (int i = 1; entries.has("lm_heads." + std::to_string(i) + ".weight"); ++i)
            network.heads.push_back(entries.matrix("lm_heads." + std::to_string(i) + ".weight", 0, width));
    } else {
        network.tokens.push_back(entries.table("transformer.wte.weight", 0, width));
        network.heads.push_back(entries.matrix("lm_head.weight", 0, width));
    }
    network.positions = entries.table("transformer.wpe.weight", size.block_size, width);
    for (int64_t i = 0; i < size.n_layer; ++i)
        network.layers.push_back(find_layer(entries, "transformer.h." + std::to_string(i) + ".", width));
    network.norm_weight = entries.vector("transformer.ln_f.weight", width);
    network.norm_bias = entries.optional_vector("transformer.ln_f.bias", width);
    return network;
}

Format Network::pass_format() const {
    for (const LayerWeights& layer : layers)
        if (layer.format != Format::f32) return Format::bf16;
    return Format::f32;
}

Format Network::cache_format() const {
    for (const LayerWeights& layer : layers)
        if (is_quantized(layer.format)) return Format::int8;
    return pass_format();
}

}  // namespace barkfast
