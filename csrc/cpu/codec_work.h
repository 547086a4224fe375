// The layers of a codec, and how they decode one block of frames.
#pragma once

#include <vector>

#include "barkfast/codec.h"
#include "barkfast/pool.h"
#include "codec_layers.h"

namespace barkfast {

struct Codec::State {
    // The history rows of every layer's input, then the LSTM cells.
    Buffer<float> memory;
    bool begun = false;
};

struct Codec::Layers {
    // The frames of one stream that are decoded together.
    struct Block {
        State& state;
        const int32_t* codes;  // (frames, codebooks)
        int64_t codebooks;
        int64_t frames;
        float* samples;  // frames * hop
    };

    Layers(const CodecConfig& config, const std::map<std::string, Tensor>& tensors, const Kernels& kernels, Pool& pool);

    // Decode one block of up to `block_frames` frames. A stream's first block needs lead_in frames, unless it is all.
    void run(const Block& block);

    int64_t n_codebooks = 0;
    int64_t codebook_size = 0;
    int64_t hop = 1;
    int64_t lead_in = 1;
    int64_t block_frames = 0;
    // Number of floats in State::memory.
    int64_t memory_floats = 0;

  private:
    void load(const State& state) const;
    void save(const State& state, const Block& block) const;
    void sum_codes(const Block& block) const;
    void run_first(Pool::Session& session, const Block& block);
    void run_lstm(Pool::Session& session, const Block& block);
    void run_steps(Pool::Session& session, const Lstm& lstm, int64_t steps);
    void add_skip(Pool::Session& session, const Block& block);
    void run_upsampling(Pool::Session& session, const Block& block, const Upsampling& layer, int64_t rows,
                        const LayerInput& next);
    void run_residual(Pool::Session& session, const Block& block, const ResidualBlock& layer, int64_t rows,
                      const float* x, float* y, const LayerInput& next);
    void run_last(Pool::Session& session, const Block& block);

    void convolve(const Convolution& layer, int64_t row, int64_t rows, float* y, int64_t y_stride) const;
    void activate(const Block& block, const float* x, int64_t n, const LayerInput& next, int64_t start) const;

    // Held during a run, because blocks of all streams share the buffers.
    FairMutex mutex_;
    const Kernels& kernels_;
    Pool& pool_;
    int64_t dimension_ = 0;
    std::vector<Buffer<float>> tables_;
    Convolution first_;
    std::vector<Lstm> lstm_;
    std::vector<Stage> stages_;
    Convolution last_;
    // Every layer input that has a history, in the order of State::memory, with its rows per frame.
    struct Remembered {
        const LayerInput* window;
        int64_t rows;
    };
    std::vector<Remembered> remembered_;

    // The first convolution's output, (frames, channels), and the LSTM's gates, (frames, 4 * channels).
    Buffer<float> wide_;
    Buffer<float> gates_;
    // A residual block's input and output, before their activation.
    Buffer<float> raw_[2];
    // Per thread: the rows between a residual block's convolutions.
    std::vector<Buffer<float>> hidden_;
    Buffer<float> samples_;
};

}  // namespace barkfast
