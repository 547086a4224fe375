#include "attention.h"

#include <cmath>

namespace barkfast {

Attention::Attention(const Kernels& kernels, const KvCache& cache, int threads)
    : kernels_(kernels),
      type_(many_input(cache.format, kernels)),
      head_dim_(cache.head_dim),
      score_stride_(round_up(cache.capacity, kGroup) + 16) {
    for (int i = 0; i < threads; ++i)
        scratch_.push_back({InputRows(kQueryBlock, head_dim_, type_), Buffer<float>(kQueryBlock * score_stride_),
                            InputRows(type_ == InputType::f32 ? 0 : kQueryBlock, cache.capacity, type_)});
}

void Attention::run(int thread, const Matrix& keys, const Matrix& values, int64_t n, bool causal, int64_t first,
                    int64_t end, const HeadRows& rows) const {
    const Scratch& scratch = scratch_[size_t(thread)];
    const bool floats = type_ == InputType::f32;
    const int64_t count = end - first, seen = causal ? end : n;
    for (int64_t i = 0; i < count; ++i)
        scratch.queries.set(kernels_, type_, i, head_dim_, rows.q + (first + i) * rows.q_stride);
    float* scores = scratch.scores.data();
    kernels_.linear(keys, scratch.queries.from(type_, 0), count, {scores, score_stride_, nullptr, Epilogue::store}, 0,
                    panel_count(seen));

    const float scale = 1 / std::sqrt(float(head_dim_));
    for (int64_t i = 0; i < count; ++i) {
        float* row = scores + i * score_stride_;
        kernels_.softmax(row, causal ? first + i + 1 : n, round_up(seen, kGroup), scale);
        if (!floats) scratch.weights.set(kernels_, type_, i, seen, row);
    }
    // Only the positions that at least one row attends to.
    Matrix columns = values;
    columns.cols = seen;
    const Input weights =
        floats ? Input{InputType::f32, scores, score_stride_ * int64_t(sizeof(float)), nullptr, nullptr, 0}
               : scratch.weights.from(type_, 0);
    kernels_.linear(columns, weights, count,
                    {rows.out + first * rows.out_stride, rows.out_stride, nullptr, Epilogue::store}, 0,
                    panel_count(head_dim_));
}

}  // namespace barkfast
