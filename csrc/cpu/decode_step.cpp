#include "decode_step.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "product.h"

namespace barkfast {

DecodeStep::DecodeStep(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool)
    : network_(network),
      cache_(cache),
      kernels_(kernels),
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

void DecodeStep::run(Pool::Session& session, const StepPlan& plan, const std::vector<Sequence>& sequences,
                     const float* hidden) {
    if (!plan.feeds.empty()) read_tokens(session, plan);
    if (plan.draws.empty()) return;
    compute_logits(session, plan, hidden);
    draw(session, plan, sequences);
}

void DecodeStep::read_tokens(Pool::Session& session, const StepPlan& plan) {
    const int64_t rows = int64_t(plan.feeds.size());
    for (int64_t r = 0; r < rows; ++r) {
        const Feed& feed = plan.feeds[size_t(r)];
        network_.tokens[0].read(feed.token, x(r));
        network_.positions.add(feed.position, x(r));
    }
    for (int64_t layer = 0; layer < network_.n_layer; ++layer) {
        const LayerWeights& w = network_.layers[size_t(layer)];
        norm(session, rows, w.norm1_weight, w.norm1_bias, w.format);
        project(session, rows, w.qkv, w.qkv_bias, normed_, Epilogue::store, qkv_.data(), 3 * width_);
        attend(session, plan.feeds, layer);
        finish(session, rows, attended_, w.format);
        project(session, rows, w.out, w.out_bias, attended_, Epilogue::add, x(0), width_);
        norm(session, rows, w.norm2_weight, w.norm2_bias, w.format);
        project(session, rows, w.fc, w.fc_bias, normed_, Epilogue::gelu, inner_.row(0), inner_.stride());
        finish(session, rows, inner_, w.format);
        project(session, rows, w.proj, w.proj_bias, inner_, Epilogue::add, x(0), width_);
    }
}

void DecodeStep::norm(Pool::Session& session, int64_t rows, const float* weight, const float* bias, Format format) {
    session.share(rows, [&](int, int64_t r) {
        kernels_.norm(x(r), weight, bias, width_, normed_.row(r));
        normed_.finish(kernels_, format, r);
    });
}

void DecodeStep::project(Pool::Session& session, int64_t rows, const Matrix& w, const float* bias,
                         const Activations& from, Epilogue then, float* to, int64_t stride) {
    const Input input = from.from(w.format, 0);
    const Output output{to, stride, bias, then};
    read_panels(session, w, panel_count(w.rows),
                [&](int64_t first, int64_t last) { kernels_.linear(w, input, rows, output, first, last); });
}

void DecodeStep::finish(Pool::Session& session, int64_t rows, const Activations& activations, Format format) {
    if (!is_quantized(format)) return;
    session.share(rows, [&](int, int64_t r) { activations.finish(kernels_, format, r); });
}

void DecodeStep::attend(Pool::Session& session, const std::vector<Feed>& feeds, int64_t layer) {
    const int64_t heads = network_.n_head, dim = network_.head_dim();
    const float scale = 1 / std::sqrt(float(dim));
    session.share(int64_t(feeds.size()) * heads, [&](int thread, int64_t i) {
        const int64_t row = i / heads, head = i % heads;
        const Feed& feed = feeds[size_t(row)];
        const float* q = qkv_.data() + row * 3 * width_ + head * dim;
        cache_.append(layer, feed.slot, head, feed.position, q + width_, q + 2 * width_);
        kernels_.attend(cache_.keys(layer, feed.slot, head), cache_.values(layer, feed.slot, head), feed.position + 1,
                        q, scale, attended_.row(row) + head * dim, scores_.data() + thread * scores_stride_);
    });
}

void DecodeStep::compute_logits(Pool::Session& session, const StepPlan& plan, const float* hidden) {
    const Matrix& head = network_.heads[0];
    session.share(int64_t(plan.draws.size()), [&](int, int64_t r) {
        const DrawRow& row = plan.draws[size_t(r)];
        if (row.feed >= 0)
            kernels_.norm(x(row.feed), network_.norm_weight, network_.norm_bias, width_, last_.row(r));
        else
            std::memcpy(last_.row(r), hidden + row.slot * width_, size_t(width_) * sizeof(float));
        last_.finish(kernels_, head.format, r);
    });
    // The panels of all groups, concatenated, are split over the threads.
    int64_t total = 0;
    for (const HeadGroup& group : plan.groups) total += group.last_panel - group.first_panel;
    read_panels(session, head, total, [&](int64_t first, int64_t last) {
        for (const HeadGroup& group : plan.groups) {
            const Input from = last_.from(head.format, group.first_row);
            const Output to{logits_row(group.first_row), logits_stride_, nullptr, Epilogue::store};
            const int64_t n = group.last_panel - group.first_panel;
            const int64_t start = std::max<int64_t>(first, 0), end = std::min(last, n);
            if (start < end)
                kernels_.linear(head, from, group.n_rows, to, group.first_panel + start, group.first_panel + end);
            // The thread with the group's first panel also computes the stop token's panel.
            if (group.stop_panel >= 0 && first <= 0 && last > 0)
                kernels_.linear(head, from, group.n_rows, to, group.stop_panel, group.stop_panel + 1);
            // Make the range relative to the next group's first panel.
            first -= n;
            last -= n;
        }
    });
}

void DecodeStep::draw(Pool::Session& session, const StepPlan& plan, const std::vector<Sequence>& sequences) {
    session.share(int64_t(plan.draws.size()), [&](int thread, int64_t r) {
        const DrawRow& row = plan.draws[size_t(r)];
        const Sequence& s = sequences[size_t(row.slot)];
        const bool has_stop = row.stop >= 0;
        if (has_stop) logits_row(r)[row.slice.end] = logits(r)[row.stop];
        Draw how = s.request.draw;
        how.number += uint32_t(s.tokens.size());
        drawn_[size_t(r)] =
            kernels_.sample(logits(r) + row.slice.first, row.slice.end - row.slice.first + has_stop, how,
                            has_stop && s.request.min_p <= 1, scratch_.data() + thread * scratch_stride_);
    });
}

}  // namespace barkfast
