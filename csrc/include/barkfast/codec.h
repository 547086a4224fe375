// EnCodec's decoder in float: codes to samples, in blocks of a few frames, so that memory does not grow with time.
//
// Time-major: a row is one moment's channels, and a convolution is a product of a matrix with overlapping rows. Every
// layer is causal, and what it remembers of its past is carried from block to block. Rows are computed each by itself,
// so where blocks begin and end changes no bit.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "barkfast/fair_mutex.h"
#include "barkfast/kernels.h"
#include "barkfast/pool.h"

namespace barkfast {

struct CodecConfig {
    int64_t n_codebooks = 8;
    int64_t codebook_size = 1024;
    int64_t dimension = 128;
    int64_t n_filters = 32;
    std::vector<int64_t> ratios = {8, 5, 4, 2};
    int64_t kernel_size = 7;
    int64_t last_kernel_size = 7;
    int64_t residual_kernel_size = 3;
    int64_t n_residual_layers = 1;
    int64_t dilation_base = 2;
    int64_t compress = 2;
    int64_t n_lstm_layers = 2;
    bool conv_shortcut = true;
    double trim_right_ratio = 1.0;
};

// One of the checkpoint's tensors, in row-major order.
struct Tensor {
    const float* data = nullptr;
    std::vector<int64_t> shape;
};

class Codec {
  public:
    class Stream;
    // Called between blocks; what it throws ends the work.
    using Between = std::function<void()>;

    // Copies the weights, which come under the checkpoint's names with weight norm folded; kernels and pool must
    // outlive it. Throws std::invalid_argument for a config that it cannot run, and for tensors that do not fit it.
    Codec(const CodecConfig& config, const std::map<std::string, Tensor>& weights, const Kernels& kernels, Pool& pool);
    ~Codec();
    Codec(const Codec&) = delete;
    Codec& operator=(const Codec&) = delete;

    // Samples per frame.
    int64_t hop() const;

    // Frames that a stream must have before its first samples: the left edges are reflections of what follows them.
    int64_t lead_in() const;

    // (codebooks, frames) codes to frames * hop() samples; up to n_codebooks codebooks. Errors as Stream::push.
    std::vector<float> decode(const int32_t* codes, int64_t codebooks, int64_t frames, const Between& between) const;

  private:
    struct Layers;
    // What one stream remembers: every layer's last rows, and the LSTM's cells.
    struct State;

    void run_block(State& state, const int32_t* codes, int64_t codebooks, int64_t frames, float* samples) const;

    std::unique_ptr<Layers> layers_;
};

// One clip, decoded as its codes come; several may be under way at once. Of one stream, one call at a time works.
class Codec::Stream {
  public:
    // The codec must outlive it.
    explicit Stream(const Codec& codec);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // The samples of all frames so far that were not yet returned; none until lead_in() frames have come.
    // codes: (codebooks, frames), and always as many codebooks. Throws std::invalid_argument if they are not, for a
    // code out of range, and after finish() or a call that was interrupted, by a fork too.
    std::vector<float> push(const int32_t* codes, int64_t codebooks, int64_t frames, const Between& between);

    // What is still to come: all samples of a clip shorter than lead_in().
    std::vector<float> finish(const Between& between);

  private:
    void take(const int32_t* codes, int64_t codebooks, int64_t frames);
    std::vector<float> decode_taken(const Between& between);
    void check_open() const;

    const Codec& codec_;
    FairMutex mutex_;
    std::unique_ptr<State> state_;
    // (frames, codebooks), not yet decoded.
    std::vector<int32_t> codes_;
    int64_t codebooks_ = 0;
    bool finished_ = false;
    bool interrupted_ = false;
};

}  // namespace barkfast
