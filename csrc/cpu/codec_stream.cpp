#include <algorithm>
#include <mutex>
#include <stdexcept>

#include "codec_work.h"

namespace barkfast {

void Codec::run_block(State& state, const int32_t* codes, int64_t codebooks, int64_t frames, float* samples) const {
    layers_->run({state, codes, codebooks, frames, samples});
    state.begun = true;
}

std::vector<float> Codec::decode(const int32_t* codes, int64_t codebooks, int64_t frames,
                                 const Between& between) const {
    Stream stream(*this);
    std::vector<float> samples = stream.push(codes, codebooks, frames, between);
    // Either push or finish returns all samples.
    return samples.empty() ? stream.finish(between) : samples;
}

Codec::Stream::Stream(const Codec& codec) : codec_(codec), state_(std::make_unique<State>()) {
    state_->memory = Buffer<float>(codec.layers_->memory_floats);
}

Codec::Stream::~Stream() = default;

std::vector<float> Codec::Stream::push(const int32_t* codes, int64_t codebooks, int64_t frames,
                                       const Between& between) {
    const std::lock_guard<FairMutex> lock(mutex_);
    check_open();
    take(codes, codebooks, frames);
    const bool waits = !state_->begun && int64_t(codes_.size()) < codec_.lead_in() * codebooks_;
    return waits ? std::vector<float>() : decode_taken(between);
}

std::vector<float> Codec::Stream::finish(const Between& between) {
    const std::lock_guard<FairMutex> lock(mutex_);
    check_open();
    finished_ = true;
    return decode_taken(between);
}

void Codec::Stream::check_open() const {
    if (finished_) throw std::invalid_argument("this stream is finished; begin a new one");
    if (interrupted_ || mutex_.abandoned()) throw std::invalid_argument("this stream was interrupted; begin a new one");
}

void Codec::Stream::take(const int32_t* codes, int64_t codebooks, int64_t frames) {
    const Layers& layers = *codec_.layers_;
    if (codebooks < 1 || codebooks > layers.n_codebooks)
        throw std::invalid_argument("codes of " + std::to_string(codebooks) + " codebooks; the codec has " +
                                    std::to_string(layers.n_codebooks));
    if (codebooks_ && codebooks != codebooks_)
        throw std::invalid_argument("codes of " + std::to_string(codebooks) + " codebooks after codes of " +
                                    std::to_string(codebooks_) + " in the same stream");
    // Copy before the check: other threads may write to the caller's memory.
    const size_t before = codes_.size();
    codes_.resize(before + size_t(codebooks * frames));
    for (int64_t frame = 0; frame < frames; ++frame)
        for (int64_t k = 0; k < codebooks; ++k)
            codes_[before + size_t(frame * codebooks + k)] = codes[k * frames + frame];
    for (size_t i = before; i < codes_.size(); ++i) {
        const int32_t code = codes_[i];
        if (code >= 0 && code < layers.codebook_size) continue;
        codes_.resize(before);
        const int64_t at = int64_t(i - before);
        throw std::invalid_argument("code " + std::to_string(code) + " in codebook " + std::to_string(at % codebooks) +
                                    ", frame " + std::to_string(at / codebooks) + " of these; expected 0 to " +
                                    std::to_string(layers.codebook_size - 1));
    }
    codebooks_ = codebooks;
}

std::vector<float> Codec::Stream::decode_taken(const Between& between) {
    const Layers& layers = *codec_.layers_;
    const int64_t frames = codebooks_ ? int64_t(codes_.size()) / codebooks_ : 0;
    std::vector<float> samples(size_t(frames * layers.hop));
    interrupted_ = true;
    for (int64_t frame = 0; frame < frames; frame += layers.block_frames) {
        if (frame) between();
        codec_.run_block(*state_, codes_.data() + frame * codebooks_, codebooks_,
                         std::min(layers.block_frames, frames - frame), samples.data() + frame * layers.hop);
    }
    interrupted_ = false;
    codes_.clear();
    return samples;
}

}  // namespace barkfast
