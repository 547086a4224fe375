// EnCodec's decoder in float32: codes to samples, in blocks of a few frames, so that memory use is bounded.
//
// Time-major: a row holds the channels of one time step, and a convolution multiplies a matrix with overlapping rows.
// Every layer is causal; its past rows are carried from block to block. Each row is computed independently, so block
// boundaries do not change a single bit of the result.
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
    // Called between blocks; an exception that it throws ends the call.
    using Between = std::function<void()>;

    // Copies the weights: tensors by checkpoint name, with weight norm folded in. `kernels` and `pool` must outlive the
    // codec. Throws std::invalid_argument for an unsupported config and for tensors that do not match it.
    Codec(const CodecConfig& config, const std::map<std::string, Tensor>& weights, const Kernels& kernels, Pool& pool);
    ~Codec();
    Codec(const Codec&) = delete;
    Codec& operator=(const Codec&) = delete;

    // Samples per frame.
    int64_t hop() const;

    // Frames that a stream needs before its first samples: the left padding is a reflection of the rows after it.
    int64_t lead_in() const;

    // Decode (codebooks, frames) codes to frames * hop() samples; up to n_codebooks codebooks. Throws like push.
    std::vector<float> decode(const int32_t* codes, int64_t codebooks, int64_t frames, const Between& between) const;

  private:
    struct Layers;
    // State of one stream: the last rows of every layer's input, and the LSTM cells.
    struct State;

    void run_block(State& state, const int32_t* codes, int64_t codebooks, int64_t frames, float* samples) const;

    std::unique_ptr<Layers> layers_;
};

// One clip, decoded as its codes arrive. Several streams may be open at once; calls of one stream run one at a time.
class Codec::Stream {
  public:
    // The codec must outlive it.
    explicit Stream(const Codec& codec);
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    // Returns the samples of all frames so far that were not yet returned; none before lead_in() frames have arrived.
    // codes: (codebooks, frames), with the same number of codebooks in every call. Throws std::invalid_argument if it
    // differs, for a code out of range, and after finish() or an interrupted call (a fork interrupts too).
    std::vector<float> push(const int32_t* codes, int64_t codebooks, int64_t frames, const Between& between);

    // Ends the stream and returns the remaining samples: all samples of a clip shorter than lead_in().
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
