// One decode step of a batch: layers, logits and draws, in phases that a pool's threads share.
#pragma once

#include <cstdint>
#include <vector>

#include "activations.h"
#include "barkfast/decoder.h"
#include "buffer.h"
#include "step_plan.h"

namespace barkfast {

class DecodeStep {
  public:
    // Allocates one row per slot of the cache.
    DecodeStep(const Network& network, const KvCache& cache, const Kernels& kernels, Pool& pool);

    // `hidden`: n_embd floats per slot, for the sequences that draw without reading a token.
    void run(Pool::Session& session, const StepPlan& plan, const std::vector<Sequence>& sequences, const float* hidden);

    // Results of the last run, one per row of its plan's draws.
    const std::vector<Drawn>& drawn() const { return drawn_; }
    // Logits of such a row, indexed by token. The stop token's logit is also stored directly after the slice.
    const float* logits(int64_t row) const { return logits_.data() + row * logits_stride_; }

  private:
    void read_tokens(Pool::Session& session, const StepPlan& plan);
    void norm(Pool::Session& session, int64_t rows, const float* weight, const float* bias, Format format);
    void project(Pool::Session& session, int64_t rows, const Matrix& w, const float* bias, const Activations& from,
                 Epilogue then, float* to, int64_t stride);
    void finish(Pool::Session& session, int64_t rows, const Activations& activations, Format format);
    void attend(Pool::Session& session, const std::vector<Feed>& feeds, int64_t layer);
    void compute_logits(Pool::Session& session, const StepPlan& plan, const float* hidden);
    void draw(Pool::Session& session, const StepPlan& plan, const std::vector<Sequence>& sequences);

    float* x(int64_t row) const { return x_.data() + row * width_; }
    float* logits_row(int64_t row) const { return logits_.data() + row * logits_stride_; }

    const Network& network_;
    const KvCache cache_;
    const Kernels& kernels_;
    const int64_t width_;
    // Rows of the head, plus space for the stop token's logit after any slice.
    const int64_t logits_stride_;
    // Floats per thread.
    const int64_t scores_stride_;
    const int64_t scratch_stride_;

    // Indexed by row of the plan's feeds: residual stream, queries with keys and values, and inputs of the matrices.
    Buffer<float> x_;
    Buffer<float> qkv_;
    Activations normed_;
    Activations attended_;
    Activations inner_;
    // Indexed by row of the plan's draws.
    Activations last_;
    Buffer<float> logits_;
    std::vector<Drawn> drawn_;
    // Indexed by thread.
    Buffer<float> scores_;
    Buffer<float> scratch_;
};

}  // namespace barkfast
