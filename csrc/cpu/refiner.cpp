#include "barkfast/refiner.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>

#include "barkfast/fair_mutex.h"
#include "barkfast/trunk.h"
#include "buffer.h"
#include "input_rows.h"
#include "product.h"

namespace barkfast {

namespace {

// Frames per work item when embedding, normalizing or drawing.
constexpr int64_t kFrameBlock = 24;

std::string number(int64_t i) { return std::to_string(i); }

void check(const Network& network) {
    const size_t n_codebooks = network.tokens.size(), n_heads = network.heads.size();
    if (n_heads == 0 || n_heads >= n_codebooks)
        throw std::invalid_argument("a network with " + std::to_string(n_codebooks) + " token tables and " +
                                    std::to_string(n_heads) +
                                    " heads is no fine network: it has a head for every "
                                    "codebook but the first ones");
    for (const Matrix& head : network.heads)
        if (head.rows != network.heads[0].rows || head.format != network.heads[0].format)
            throw std::invalid_argument("the fine network's heads differ in size or format; expected all the same");
}

}  // namespace

struct Refiner::Work {
    const Network& network;
    const Kernels& kernels;
    Pool& pool;
    Trunk trunk;
    // Keys and values of the current layer, for all positions.
    KvCache cache;
    Buffer<uint8_t> cache_memory;
    // The frames after the final norm, as inputs of the heads.
    InputRows hidden;
    int64_t logit_stride;
    // Per thread: logits of kFrameBlock frames, one frame's hidden state, and scratch for Kernels::sample.
    Buffer<float> logits;
    Buffer<float> normed;
    Buffer<float> sampling;
    FairMutex busy;

    Work(const Network& network, const Kernels& kernels, Pool& pool)
        : network(network),
          kernels(kernels),
          pool(pool),
          trunk(network, kernels, pool),
          hidden(network.block_size, network.n_embd, many_input(network.heads[0].format, kernels)),
          logit_stride(round_up(network.heads[0].rows, kPanelRows) + 16),
          logits(pool.size() * kFrameBlock * logit_stride),
          normed(pool.size() * round_up(network.n_embd, 16)),
          sampling(pool.size() * 2 * logit_stride) {
        cache.format = network.pass_format();
        cache.n_layer = cache.n_slots = 1;
        cache.n_head = network.n_head;
        cache.head_dim = network.head_dim();
        cache.capacity = cache_capacity(network.block_size);
        cache_memory = Buffer<uint8_t>(2 * cache.total_bytes());
        cache.key_data = cache_memory.data();
        cache.value_data = cache_memory.data() + cache.total_bytes();
    }

    int64_t n_given() const { return int64_t(network.tokens.size() - network.heads.size()); }

    void check_codes(const int32_t* codes, int64_t frames) const {
        if (frames < 1 || frames > network.block_size)
            throw std::invalid_argument("a window of " + number(frames) + " frames does not fit the fine network's " +
                                        number(network.block_size) + " positions");
        const int64_t n = int64_t(network.tokens.size());
        for (int64_t i = 0; i < frames * n; ++i)
            if (codes[i] < 0 || codes[i] >= network.tokens[size_t(i % n)].rows)
                throw std::invalid_argument("code " + number(codes[i]) + " of frame " + number(i / n) + ", codebook " +
                                            number(i % n) + " is not among the network's " +
                                            number(network.tokens[size_t(i % n)].rows));
    }

    void check_codebook(int64_t codebook) const {
        if (codebook < n_given() || codebook >= int64_t(network.tokens.size()))
            throw std::invalid_argument("codebook " + number(codebook) + " cannot be predicted; expected " +
                                        number(n_given()) + " to " + number(int64_t(network.tokens.size()) - 1));
    }

    // One phase: call work(thread, first, end) for blocks first .. end - 1 of frames `start` .. `frames` - 1.
    template <class Frames>
    void each_block(Pool::Session& session, int64_t start, int64_t frames, const Frames& work) {
        session.share(ceil_div(frames - start, kFrameBlock), [&](int thread, int64_t i) {
            const int64_t first = start + i * kFrameBlock;
            work(thread, first, std::min(first + kFrameBlock, frames));
        });
    }

    void embed(int64_t frame, const int32_t* codes, int64_t codebook) {
        float* x = trunk.row(frame);
        network.tokens[0].read(codes[0], x);
        for (int64_t k = 1; k <= codebook; ++k) network.tokens[size_t(k)].add(codes[k], x);
        network.positions.add(frame, x);
    }

    // Run the network, and call `use(thread, frame, logits)` for each frame from `first_frame` on, with the logits of
    // the first `n_ids` ids of `codebook`.
    template <class Use>
    void run(const int32_t* codes, int64_t frames, int64_t first_frame, int64_t codebook, int64_t n_ids,
             const Use& use) {
        const Pass pass{frames, first_frame, false, &cache, 0};
        const Matrix& head = network.heads[size_t(codebook - n_given())];
        const InputType type = many_input(head.format, kernels);
        Pool::Session session(pool);
        each_block(session, 0, frames, [&](int, int64_t first, int64_t end) {
            for (int64_t t = first; t < end; ++t) embed(t, codes + t * int64_t(network.tokens.size()), codebook);
        });
        trunk.run(session, pass);
        each_block(session, first_frame, frames, [&](int thread, int64_t first, int64_t end) {
            float* out = logits.data() + thread * kFrameBlock * logit_stride;
            float* row = normed.data() + thread * round_up(network.n_embd, 16);
            for (int64_t t = first; t < end; ++t) {
                kernels.norm(trunk.row(t), network.norm_weight, network.norm_bias, network.n_embd, row);
                hidden.set(kernels, type, t, network.n_embd, row);
            }
            kernels.linear(head, hidden.from(type, first), end - first, {out, logit_stride, nullptr, Epilogue::store},
                           0, panel_count(n_ids));
            for (int64_t t = first; t < end; ++t) use(thread, t, out + (t - first) * logit_stride);
        });
    }
};

Refiner::Refiner(const Network& network, const Kernels& kernels, Pool& pool) {
    check(network);
    work_ = std::make_unique<Work>(network, kernels, pool);
}

Refiner::~Refiner() = default;

int64_t Refiner::n_codebooks() const { return int64_t(work_->network.tokens.size()); }

int64_t Refiner::n_given() const { return work_->n_given(); }

int64_t Refiner::vocabulary() const { return work_->network.heads[0].rows; }

bool Refiner::refine(const Window& window, const Draw& draw, const std::function<void()>& between) {
    const std::lock_guard<FairMutex> lock(work_->busy);
    work_->check_codes(window.codes, window.frames);
    if (window.first_frame < 0 || window.first_frame > window.frames)
        throw std::invalid_argument("first frame " + number(window.first_frame) + " of a window of " +
                                    number(window.frames) + "; expected 0 to " + number(window.frames));
    if (window.codebook_size < 1 || window.codebook_size > vocabulary())
        throw std::invalid_argument("a codebook of " + number(window.codebook_size) +
                                    " ids does not fit the network's " + number(vocabulary()));
    if (window.first_frame == window.frames) return true;

    std::atomic<bool> finite{true};
    for (int64_t k = window.first_codebook; k < n_codebooks() && finite; ++k) {
        work_->check_codebook(k);
        between();
        work_->run(window.codes, window.frames, window.first_frame, k, window.codebook_size,
                   [&](int thread, int64_t frame, const float* logits) {
                       Draw one = draw;
                       one.number += uint32_t(k * window.frames + frame);
                       float* scratch = work_->sampling.data() + thread * 2 * work_->logit_stride;
                       const Drawn drawn = work_->kernels.sample(logits, window.codebook_size, one, false, scratch);
                       if (drawn.finite)
                           window.codes[frame * n_codebooks() + k] = drawn.index;
                       else
                           finite = false;
                   });
    }
    return finite;
}

void Refiner::logits(const int32_t* codes, int64_t frames, int64_t codebook, float* logits) {
    const std::lock_guard<FairMutex> lock(work_->busy);
    work_->check_codes(codes, frames);
    work_->check_codebook(codebook);
    const int64_t n = vocabulary();
    work_->run(codes, frames, 0, codebook, n,
               [&](int, int64_t frame, const float* row) { std::copy(row, row + n, logits + frame * n); });
}

}  // namespace barkfast
