#include "decode_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace barkfast {

namespace {

// A thread's share of n things that lie side by side.
struct Share {
    int64_t first;
    int64_t last;

    Share(int64_t n, int thread, int threads) : first(n * thread / threads), last(n * (thread + 1) / threads) {}
};

}  // namespace

DecodeStep::DecodeStep(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool)
    : network_(network),
      cache_(cache),
      kernels_(kernels),
      pool_(pool),
      width_(network.n_embd),
      logits_stride_(round_up(network.heads[0].rows + 1, kPanelRows) + kPanelRows),
      scores_stride_(round_up(cache.capacity, 64) + 64),
      scratch_stride_(2 * logits_stride_),
      x_(cache.n_slots * width_),
      qkv_(cache.n_slots * 3 * width_),
      normed_(cache.n_slots, width_),
      attended_(cache.n_slots, width_),
      inner_(cache.n_slots, 4 * width_),
      last_(cache.n_slots, width_),
      logits_(cache.n_slots * logits_stride_),
      drawn_(size_t(cache.n_slots)),
      scores_(pool.size() * scores_stride_),
      scratch_(pool.size() * scratch_stride_) {}

void DecodeStep::run(int thread, const StepPlan& plan, const std::vector<Sequence>& sequences, const float* hidden) {
    // Asked first: behind the last phase's barrier the plan may be the next step's already.
    const bool draws = !plan.draws.empty();
    if (!plan.feeds.empty()) read_tokens(thread, plan);
    if (!draws) return;
    compute_logits(thread, plan, hidden);
    draw(thread, plan, sequences);
}

void DecodeStep::read_tokens(int thread, const StepPlan& plan) {
    const int64_t rows = int64_t(plan.feeds.size());
    for (int64_t r = thread; r < rows; r += pool_.size()) {
        const Feed& feed = plan.feeds[size_t(r)];
        network_.tokens[0].read(feed.token, x(r));
        network_.positions.add(feed.position, x(r));
    }
    for (int64_t layer = 0; layer < network_.n_layer; ++layer) {
        const LayerWeights& w = network_.layers[size_t(layer)];
        // The first one needs no barrier in front: a row stays with its thread.
        norm(thread, rows, w.norm1_weight, w.norm1_bias, w.format);
        project(thread, rows, w.qkv, w.qkv_bias, normed_, Then::store, qkv_.data(), 3 * width_);
        attend(thread, plan.feeds, layer);
        finish(thread, rows, attended_, w.format);
        project(thread, rows, w.out, w.out_bias, attended_, Then::add, x(0), width_);
        norm(thread, rows, w.norm2_weight, w.norm2_bias, w.format);
        project(thread, rows, w.fc, w.fc_bias, normed_, Then::gelu, inner_.row(0), inner_.stride());
        finish(thread, rows, inner_, w.format);
        project(thread, rows, w.proj, w.proj_bias, inner_, Then::add, x(0), width_);
    }
}

void DecodeStep::norm(int thread, int64_t rows, const float* weight, const float* bias, Format format) {
    for (int64_t r = thread; r < rows; r += pool_.size()) {
        kernels_.norm(x(r), weight, bias, width_, normed_.row(r));
        normed_.finish(kernels_, format, r);
    }
    pool_.barrier();
}

void DecodeStep::project(int thread, int64_t rows, const Matrix& w, const float* bias, const Activations& from,
                         Then then, float* to, int64_t stride) {
    const Share panels(panel_count(w.rows), thread, pool_.size());
    if (panels.first < panels.last)
        kernels_.linear(w, from.from(w.format, 0), rows, {to, stride, bias, then}, panels.first, panels.last);
    pool_.barrier();
}

void DecodeStep::finish(int thread, int64_t rows, const Activations& activations, Format format) {
    if (!is_quantized(format)) return;
    for (int64_t r = thread; r < rows; r += pool_.size()) activations.finish(kernels_, format, r);
    pool_.barrier();
}

void DecodeStep::attend(int thread, const std::vector<Feed>& feeds, int64_t layer) {
    const int64_t heads = network_.n_head, dim = network_.head_dim();
    const float scale = 1 / std::sqrt(float(dim));
    // Dealt out in turn, as sequences differ in length.
    for (int64_t i = thread; i < int64_t(feeds.size()) * heads; i += pool_.size()) {
        const int64_t row = i / heads, head = i % heads;
        const Feed& feed = feeds[size_t(row)];
        const float* q = qkv_.data() + row * 3 * width_ + head * dim;
        cache_.append(layer, feed.slot, head, feed.position, q + width_, q + 2 * width_);
        kernels_.attend(cache_.keys(layer, feed.slot, head), cache_.values(layer, feed.slot, head), feed.position + 1,
                        q, scale, attended_.row(row) + head * dim, scores_.data() + thread * scores_stride_);
    }
    pool_.barrier();
}

void DecodeStep::compute_logits(int thread, const StepPlan& plan, const float* hidden) {
    for (int64_t r = thread; r < int64_t(plan.draws.size()); r += pool_.size()) {
        const DrawRow& row = plan.draws[size_t(r)];
        if (row.feed >= 0)
            kernels_.norm(x(row.feed), network_.norm_weight, network_.norm_bias, width_, last_.row(r));
        else
            std::memcpy(last_.row(r), hidden + row.slot * width_, size_t(width_) * sizeof(float));
        last_.finish(kernels_, network_.heads[0].format, r);
    }
    pool_.barrier();
    const Matrix& head = network_.heads[0];
    int64_t total = 0;
    for (const HeadGroup& group : plan.groups) total += group.last_panel - group.first_panel;
    // The groups' panels one after the other are shared out; `mine` counts from the current group's first.
    Share mine(total, thread, pool_.size());
    for (const HeadGroup& group : plan.groups) {
        const Input from = last_.from(head.format, group.first_row);
        const Output to{logits_row(group.first_row), logits_stride_, nullptr, Then::store};
        const int64_t n = group.last_panel - group.first_panel;
        const int64_t first = std::max<int64_t>(mine.first, 0), last = std::min(mine.last, n);
        if (first < last)
            kernels_.linear(head, from, group.n_rows, to, group.first_panel + first, group.first_panel + last);
        // With the group's first panel.
        if (group.stop_panel >= 0 && mine.first <= 0 && mine.last > 0)
            kernels_.linear(head, from, group.n_rows, to, group.stop_panel, group.stop_panel + 1);
        mine.first -= n;
        mine.last -= n;
    }
    pool_.barrier();
}

void DecodeStep::draw(int thread, const StepPlan& plan, const std::vector<Sequence>& sequences) {
    for (int64_t r = thread; r < int64_t(plan.draws.size()); r += pool_.size()) {
        const DrawRow& row = plan.draws[size_t(r)];
        const Sequence& s = sequences[size_t(row.slot)];
        const bool has_stop = row.stop >= 0;
        if (has_stop) logits_row(r)[row.slice.end] = logits(r)[row.stop];
        Draw how = s.request.draw;
        how.number += uint32_t(s.tokens.size());
        drawn_[size_t(r)] =
            kernels_.sample(logits(r) + row.slice.first, row.slice.end - row.slice.first + has_stop, how,
                            has_stop && s.request.min_p <= 1, scratch_.data() + thread * scratch_stride_);
    }
    pool_.barrier();
}

}  // namespace barkfast
