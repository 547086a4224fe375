#include "barkfast/trunk.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

#include "attention.h"
#include "barkfast/fair_mutex.h"
#include "buffer.h"
#include "input_rows.h"
#include "product.h"

namespace barkfast {

namespace {

// Rows per work item where each row needs little work.
constexpr int64_t kFewRows = 16;

// Rows of floats with an extra cache line between them: see InputRows.
struct FloatRows {
    int64_t stride = 0;
    Buffer<float> data;

    FloatRows(int64_t rows, int64_t width) : stride(round_up(width, kGroup) + 16), data(rows * stride) {}
    float* row(int64_t i) const { return data.data() + i * stride; }
};

// Columns of keys per piece: a whole number of heads.
int64_t piece_cols(const Network& network) {
    return std::max<int64_t>(1, kPanelGroup * kPanelRows / network.head_dim()) * network.head_dim();
}

// The widest input type of all layers.
InputType widest_input(const Network& network, const Kernels& kernels) {
    InputType widest = InputType::int8;
    for (const LayerWeights& layer : network.layers) widest = std::min(widest, many_input(layer.format, kernels));
    return widest;
}

// Shape of the one-layer cache that attention reads, without memory.
KvCache cache_shape(const Network& network) {
    KvCache cache;
    cache.format = network.pass_format();
    cache.n_layer = cache.n_slots = 1;
    cache.n_head = network.n_head;
    cache.head_dim = network.head_dim();
    cache.capacity = cache_capacity(network.block_size);
    return cache;
}

int64_t pass_layer(const Pass& pass, int64_t layer) { return pass.cache->n_layer == 1 ? 0 : layer; }

}  // namespace

struct Trunk::Work {
    const Network& network;
    const Kernels& kernels;
    Pool& pool;
    Attention attention;
    FloatRows x;
    FloatRows queries;
    // Output of attention.
    FloatRows mixed;
    // Inputs of the layers' matrices: n_embd wide, and the MLP's hidden activations, 4 * n_embd wide.
    InputRows inputs;
    InputRows inner;
    // Per thread: one row, and two pieces of products.
    FloatRows normed;
    int64_t piece_rows;
    FloatRows piece;
    KvCache one_layer;
    Buffer<uint8_t> one_layer_memory;
    // Held during a prefill.
    FairMutex busy;

    Work(const Network& network, const Kernels& kernels, Pool& pool)
        : network(network),
          kernels(kernels),
          pool(pool),
          attention(kernels, cache_shape(network), pool.size()),
          x(network.block_size, network.n_embd),
          queries(network.block_size, network.n_embd),
          mixed(network.block_size, network.n_embd),
          inputs(network.block_size, network.n_embd, widest_input(network, kernels)),
          inner(network.block_size, 4 * network.n_embd, widest_input(network, kernels)),
          normed(pool.size(), network.n_embd),
          piece_rows(kernels.dequantizes ? kMostRows : kRowBlock),
          piece(pool.size() * piece_rows, 2 * piece_cols(network)) {}

    // One-layer cache, used to prefill a prompt whose own cache is in int8.
    const KvCache& unrounded() {
        if (!one_layer.key_data) {
            one_layer = cache_shape(network);
            one_layer_memory = Buffer<uint8_t>(2 * one_layer.total_bytes());
            one_layer.key_data = one_layer_memory.data();
            one_layer.value_data = one_layer_memory.data() + one_layer.total_bytes();
        }
        return one_layer;
    }

    // One phase: call work(thread, row) for rows first .. end - 1, kFewRows per work item.
    template <class OneRow>
    void each_row(Pool::Session& session, int64_t first, int64_t end, const OneRow& work) {
        session.share(ceil_div(end - first, kFewRows), [&](int thread, int64_t i) {
            const int64_t start = first + i * kFewRows;
            for (int64_t row = start; row < std::min(start + kFewRows, end); ++row) work(thread, row);
        });
    }

    // Normalize rows first .. end - 1, as inputs of a matrix of this format.
    Input normalize(Pool::Session& session, Format format, const float* weight, const float* bias, int64_t first,
                    int64_t end) {
        const InputType type = many_input(format, kernels);
        each_row(session, first, end, [&](int thread, int64_t row) {
            kernels.norm(x.row(row), weight, bias, network.n_embd, normed.row(thread));
            inputs.set(kernels, type, row, network.n_embd, normed.row(thread));
        });
        return inputs.from(type, first);
    }

    void product(Pool::Session& session, const Matrix& w, const Input& inputs, int64_t rows, const Output& y) {
        multiply(session, kernels, w, inputs, rows, y, 0, panel_count(w.rows));
    }

    // Kernels::linear over panels from .. to - 1, with the first column at `out`.
    void make_piece(const Matrix& w, const float* bias, const Input& x, int64_t rows, int64_t from, int64_t to,
                    Epilogue then, float* out) {
        kernels.linear(skip_panels(w, from), x, rows,
                       {out, piece.stride, bias ? bias + from * kPanelRows : nullptr, then}, 0, to - from);
    }

    // Compute the keys and values of all rows and write them to the cache, in pieces of some rows of some heads.
    void store_keys(Pool::Session& session, const Input& normal, int64_t i_layer, const Pass& pass) {
        const LayerWeights& layer = network.layers[size_t(i_layer)];
        const int64_t width = network.n_embd, head_dim = network.head_dim(), panels = panel_count(width);
        each_piece(session, pass.rows, rows_at_once(kernels, layer.qkv, normal), 0, panels,
                   piece_cols(network) / kPanelRows, [&](int thread, int64_t row, int64_t n, int64_t from, int64_t to) {
                       float* const keys = piece.row(thread * piece_rows);
                       float* const values = keys + piece_cols(network);
                       const Input x = skip_rows(normal, row);
                       make_piece(layer.qkv, layer.qkv_bias, x, n, panels + from, panels + to, Epilogue::store, keys);
                       make_piece(layer.qkv, layer.qkv_bias, x, n, 2 * panels + from, 2 * panels + to, Epilogue::store,
                                  values);
                       const int64_t start = from * kPanelRows, end = to * kPanelRows;
                       for (int64_t col = start; col < end; col += head_dim) {
                           const int64_t head = col / head_dim;
                           const float *k = keys + col - start, *v = values + col - start;
                           pass.cache->write(pass_layer(pass, i_layer), pass.slot, head, row, n, k, v, piece.stride);
                           if (pass.kept) pass.kept->write(i_layer, pass.kept_slot, head, row, n, k, v, piece.stride);
                       }
                   });
    }

    // x += attention, for rows from `first` on; keys and values of all rows go into the cache.
    void attend(Pool::Session& session, int64_t i_layer, const Pass& pass, int64_t first) {
        const LayerWeights& layer = network.layers[size_t(i_layer)];
        const int64_t width = network.n_embd, n_head = network.n_head, head_dim = network.head_dim();
        const int64_t n = pass.rows;
        const KvCache& cache = *pass.cache;
        const int64_t cache_layer = pass_layer(pass, i_layer);
        const Input normal = normalize(session, layer.format, layer.norm1_weight, layer.norm1_bias, 0, n);
        store_keys(session, normal, i_layer, pass);
        multiply(session, kernels, layer.qkv, skip_rows(normal, first), n - first,
                 {queries.row(first), queries.stride, layer.qkv_bias, Epilogue::store}, 0, panel_count(width));

        const int64_t blocks = ceil_div(n - first, kQueryBlock);
        session.share(n_head * blocks, [&](int thread, int64_t i) {
            const int64_t head = i / blocks, start = first + i % blocks * kQueryBlock;
            attention.run(
                thread, cache.keys(cache_layer, pass.slot, head), cache.values(cache_layer, pass.slot, head), n,
                pass.causal, start, std::min(start + kQueryBlock, n),
                {queries.row(0) + head * head_dim, queries.stride, mixed.row(0) + head * head_dim, mixed.stride});
        });
        const InputType type = many_input(layer.format, kernels);
        each_row(session, first, n, [&](int, int64_t row) { inputs.set(kernels, type, row, width, mixed.row(row)); });
        product(session, layer.out, inputs.from(type, first), n - first,
                {x.row(first), x.stride, layer.out_bias, Epilogue::add});
    }

    // x += MLP, for rows first .. end - 1.
    void mlp(Pool::Session& session, const LayerWeights& layer, int64_t first, int64_t end) {
        const Input normal = normalize(session, layer.format, layer.norm2_weight, layer.norm2_bias, first, end);
        const InputType type = many_input(layer.format, kernels);
        // The hidden activations are stored as inputs piece by piece, while they are in the CPU cache.
        each_piece(session, end - first, rows_at_once(kernels, layer.fc, normal), 0, panel_count(layer.fc.rows),
                   kPanelGroup, [&](int thread, int64_t row, int64_t n, int64_t from, int64_t to) {
                       float* const out = piece.row(thread * piece_rows);
                       make_piece(layer.fc, layer.fc_bias, skip_rows(normal, row), n, from, to, Epilogue::gelu, out);
                       for (int64_t i = 0; i < n; ++i)
                           inner.set(kernels, type, first + row + i, (to - from) * kPanelRows, out + i * piece.stride,
                                     from * kPanelRows);
                   });
        product(session, layer.proj, inner.from(type, first), end - first,
                {x.row(first), x.stride, layer.proj_bias, Epilogue::add});
    }
};

Trunk::Trunk(const Network& network, const Kernels& kernels, Pool& pool)
    : work_(std::make_unique<Work>(network, kernels, pool)) {}

Trunk::~Trunk() = default;

float* Trunk::row(int64_t row) { return work_->x.row(row); }

void Trunk::run(Pool::Session& session, const Pass& pass) {
    const Network& network = work_->network;
    for (int64_t i = 0; i < network.n_layer; ++i) {
        const int64_t first = i == network.n_layer - 1 ? pass.first_needed : 0;
        const LayerWeights& layer = network.layers[size_t(i)];
        work_->attend(session, i, pass, first);
        work_->mlp(session, layer, first, pass.rows);
    }
}

void Trunk::prefill(const int32_t* tokens, int64_t n_tokens, int64_t n_merged, const KvCache& cache, int64_t slot,
                    float* hidden) {
    const std::lock_guard<FairMutex> lock(work_->busy);
    const Network& network = work_->network;
    const Table& table = network.tokens[0];
    const int64_t n = n_tokens - n_merged;
    if (n_merged < 0 || n < std::max<int64_t>(n_merged, 1) || n > network.block_size)
        throw std::invalid_argument("a prompt of " + std::to_string(n_tokens) + " tokens, of which twice " +
                                    std::to_string(n_merged) + " are merged, does not fit 1 to " +
                                    std::to_string(network.block_size) + " positions");
    for (int64_t i = 0; i < n_tokens; ++i)
        if (tokens[i] < 0 || tokens[i] >= table.rows)
            throw std::invalid_argument("token id " + std::to_string(tokens[i]) + " is not in the vocabulary of " +
                                        std::to_string(table.rows));

    // With an int8 cache, the prefill itself attends to the keys and values before they are rounded.
    const bool rounded = cache.format == Format::int8;
    const Pass pass =
        rounded ? Pass{n, n - 1, true, &work_->unrounded(), 0, &cache, slot} : Pass{n, n - 1, true, &cache, slot};
    Pool::Session session(work_->pool);
    work_->each_row(session, 0, n, [&](int, int64_t i) {
        float* x = row(i);
        table.read(tokens[i < n_merged ? i : i + n_merged], x);
        if (i < n_merged) table.add(tokens[i + n_merged], x);
        network.positions.add(i, x);
    });
    run(session, pass);
    work_->kernels.norm(row(n - 1), network.norm_weight, network.norm_bias, network.n_embd, hidden);
}

}  // namespace barkfast
