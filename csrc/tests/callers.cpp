// Several threads call everything that is thread-safe: on one pool, on one object, and while others create and destroy
// objects. Each result is compared with that of one thread; under ThreadSanitizer a race fails too.
#include <atomic>
#include <functional>
#include <map>
#include <stdexcept>
#include <thread>

#include "barkfast/codec.h"
#include "barkfast/decoder.h"
#include "barkfast/pack.h"
#include "barkfast/refiner.h"
#include "barkfast/trunk.h"
#include "buffer.h"
#include "check.h"
#include "levels.h"
#include "weights.h"

using namespace barkfast;
using namespace tests;

namespace {

constexpr int64_t kWidth = 32, kBlock = 32, kIds = 24;
constexpr int kRounds = 2;
const NetworkSize kSize = {1, 2, kWidth, kBlock};
const auto kNothing = [] {};

const Kernels& functions() { return scalar::table(); }

// Run all callers at once, each in its own thread.
void together(const std::vector<std::function<void()>>& callers) {
    std::vector<std::thread> threads;
    for (const auto& caller : callers) threads.emplace_back(caller);
    for (std::thread& thread : threads) thread.join();
}

struct Gpt {
    Weights weights{Format::f32, kSize, kIds};
    const Network network = weights.build(false);
};

struct Fine {
    Weights weights{Format::f32, kSize, kIds};
    const Network network = weights.build(true);
};

const std::vector<int32_t> kPrompt = {3, 1, 4, 1, 5};

// A decoder with the memory of its cache.
struct OwnDecoder {
    Buffer<uint8_t> memory;
    Decoder decoder;

    OwnDecoder(const Network& network, Pool& pool)
        : decoder(network, cache_of(network, 2, memory), functions(), pool) {}

    // Two sequences with different seeds, in one batch.
    std::vector<int32_t> draw() {
        for (int64_t slot : {0, 1}) {
            Request request;
            request.steps = 6;
            request.slices = {{0, kIds}};
            request.draw.temperature = 1;
            request.draw.seed = uint64_t(slot + 1);
            decoder.prefill(slot, kPrompt.data(), int64_t(kPrompt.size()), 0);
            decoder.start(slot, request);
        }
        decoder.advance({0, 1}, 100, 0, kNothing);
        decoder.advance({0, 1}, 100, 1e9, kNothing);
        std::vector<int32_t> tokens = decoder.tokens(0);
        for (int32_t token : decoder.tokens(1)) tokens.push_back(token);
        return tokens;
    }
};

std::vector<int32_t> refine(Refiner& refiner) {
    std::vector<int32_t> codes(3 * 20, 0);
    for (size_t i = 0; i < codes.size(); i += 3) codes[i] = int32_t(i) % kIds;
    Draw draw;
    draw.temperature = 1;
    refiner.refine({codes.data(), 20, 2, 1, kIds}, draw, kNothing);
    return codes;
}

std::vector<float> logits(Refiner& refiner) {
    const std::vector<int32_t> codes(3 * 20, 7);
    std::vector<float> out(20 * kIds);
    refiner.logits(codes.data(), 20, 2, out.data());
    return out;
}

CodecConfig codec_config() {
    CodecConfig config;
    config.n_codebooks = 2;
    config.codebook_size = 8;
    config.dimension = 16;
    config.n_filters = 8;
    config.ratios = {2};
    config.n_lstm_layers = 1;
    return config;
}

struct CodecTensors {
    Numbers numbers{6};
    std::vector<std::vector<float>> memory;
    std::map<std::string, Tensor> all;

    void add(const std::string& name, const std::vector<int64_t>& shape) {
        int64_t n = 1;
        for (int64_t size : shape) n *= size;
        memory.push_back(numbers.floats(n, -0.3f, 0.3f));
        all[name] = {memory.back().data(), shape};
    }
    void convolution(const std::string& name, int64_t out, int64_t in, int64_t kernel) {
        add("decoder.layers." + name + ".conv.weight", {out, in, kernel});
        add("decoder.layers." + name + ".conv.bias", {name == "3" ? in : out});
    }
    CodecTensors() {
        for (const char* i : {"0", "1"}) add("quantizer.layers." + std::string(i) + ".codebook.embed", {8, 16});
        convolution("0", 16, 16, 7);
        for (const char* kind : {"ih", "hh"}) {
            add("decoder.layers.1.lstm.weight_" + std::string(kind) + "_l0", {64, 16});
            add("decoder.layers.1.lstm.bias_" + std::string(kind) + "_l0", {64});
        }
        convolution("3", 16, 8, 4);
        convolution("4.block.1", 4, 8, 3);
        convolution("4.block.3", 8, 4, 1);
        convolution("4.shortcut", 8, 8, 1);
        convolution("6", 1, 8, 7);
    }
};

constexpr int64_t kFrames = 40;

std::vector<int32_t> clip() {
    Numbers numbers{7};
    std::vector<int32_t> codes;
    for (int64_t i = 0; i < 2 * kFrames; ++i) codes.push_back(numbers.integer(0, 8));
    return codes;
}

// Push the clip twice into one stream.
std::vector<float> stream(const Codec& codec) {
    Codec::Stream stream(codec);
    std::vector<float> samples = stream.push(clip().data(), 2, kFrames, kNothing);
    const std::vector<float> more = stream.push(clip().data(), 2, kFrames, kNothing);
    samples.insert(samples.end(), more.begin(), more.end());
    return samples;
}

std::vector<uint8_t> pack() {
    Numbers numbers{8};
    const std::vector<float> source = numbers.floats(100 * 40);
    std::vector<uint8_t> panels(size_t(packed_bytes(Format::int8, 100, 40)));
    pack_matrix({SourceType::f32, 100, 40, source.data()}, Format::int8, panels.data(), 2);
    return panels;
}

// A caller that repeats `work`; `good` becomes false if a result differs from the first one.
template <class Work>
std::function<void()> repeat(const Work& work, bool& good) {
    const auto expected = work();
    return [work, expected, &good] {
        for (int i = 0; i < kRounds; ++i)
            if (work() != expected) good = false;
    };
}

}  // namespace

TEST(callers_of_one_pool) {
    for (int threads : {1, 2}) {
        note = std::to_string(threads) + " threads";
        Pool pool(threads);
        const Gpt gpt;
        const Fine fine;
        const CodecTensors tensors;
        OwnDecoder first(gpt.network, pool), second(gpt.network, pool), third(gpt.network, pool);
        Refiner refiner(fine.network, functions(), pool);
        const Codec codec(codec_config(), tensors.all, functions(), pool);
        bool good[6] = {true, true, true, true, true, true};
        const auto two = [&] {
            const std::vector<int32_t> tokens = second.draw();
            return tokens == third.draw() ? tokens : std::vector<int32_t>();
        };
        together({repeat([&] { return first.draw(); }, good[0]), repeat(two, good[1]),
                  repeat([&] { return refine(refiner); }, good[2]), repeat([&] { return stream(codec); }, good[3]),
                  repeat(pack, good[4]), repeat([&] { return logits(refiner); }, good[5])});
        for (bool each : good) CHECK(each);
        CHECK(first.draw().size() == 12);
    }
}

TEST(callers_of_one_object) {
    Pool pool(2);
    const Gpt gpt;
    const Fine fine;
    const CodecTensors tensors;
    Refiner refiner(fine.network, functions(), pool);
    const Codec codec(codec_config(), tensors.all, functions(), pool);
    Trunk trunk(gpt.network, functions(), pool);
    Buffer<uint8_t> memory;
    const KvCache cache = cache_of(gpt.network, 1, memory);
    const auto prefill = [&] {
        std::vector<float> hidden(kWidth);
        trunk.prefill(kPrompt.data(), int64_t(kPrompt.size()), 0, cache, 0, hidden.data());
        return hidden;
    };
    bool good[6] = {true, true, true, true, true, true};
    note = "a refiner";
    together({repeat([&] { return refine(refiner); }, good[0]), repeat([&] { return logits(refiner); }, good[1])});
    note = "a codec";
    together({repeat([&] { return stream(codec); }, good[2]),
              repeat([&] { return codec.decode(clip().data(), 2, kFrames, kNothing); }, good[3])});
    note = "a trunk";
    together({repeat(prefill, good[4]), repeat(prefill, good[5])});
    for (bool each : good) CHECK(each);
}

// Pushes of two threads into one stream run one after the other, in either order.
TEST(callers_of_one_stream) {
    Pool pool(2);
    const CodecTensors tensors;
    const Codec codec(codec_config(), tensors.all, functions(), pool);
    Codec::Stream shared(codec);
    std::vector<float> samples[2];
    const auto push = [&](size_t i) { samples[i] = shared.push(clip().data(), 2, kFrames, kNothing); };
    together({[&] { push(0); }, [&] { push(1); }});
    const std::vector<float> expected = stream(codec);
    bool found = false;
    for (size_t i : {0, 1}) {
        std::vector<float> both = samples[i];
        both.insert(both.end(), samples[1 - i].begin(), samples[1 - i].end());
        found |= both == expected;
    }
    CHECK(found);
}

// While one thread is in a decoder's call, the decoder refuses all calls of other threads.
TEST(callers_of_one_decoder) {
    Pool pool(2);
    const Gpt gpt;
    OwnDecoder own(gpt.network, pool);
    const std::vector<int32_t> expected = own.draw();
    std::atomic<int> done{0};
    const auto call = [&](const auto& calls) {
        for (int i = 0; i < 15; ++i) {
            try {
                calls();
            } catch (const std::runtime_error&) {
                // Another thread is in a call.
            } catch (const std::invalid_argument&) {
                // The other thread left the slot in another state.
            }
        }
        ++done;
    };
    together({[&] { call([&] { own.draw(); }); },
              [&] {
                  call([&] {
                      own.decoder.state(0);
                      own.decoder.tokens(1);
                      own.decoder.length(0);
                      own.decoder.logits(0);
                  });
              },
              [&] {
                  call([&] {
                      own.decoder.pause(0);
                      own.decoder.advance({0, 1}, 2, 1, kNothing);
                  });
              }});
    CHECK(done == 3);
    for (int64_t slot : {0, 1}) own.decoder.pause(slot);
    CHECK(own.draw() == expected);
}

TEST(callers_while_others_are_made_and_destroyed) {
    Pool pool(2);
    const Gpt gpt;
    const CodecTensors tensors;
    OwnDecoder steady(gpt.network, pool);
    bool good[3] = {true, true, true};
    const auto new_decoder = [&] { return OwnDecoder(gpt.network, pool).draw(); };
    const auto new_pool = [&] {
        Pool own(2);
        return stream(Codec(codec_config(), tensors.all, functions(), own));
    };
    together({repeat([&] { return steady.draw(); }, good[0]), repeat(new_decoder, good[1]), repeat(new_pool, good[2])});
    for (bool each : good) CHECK(each);
}

TEST(callers_from_within_a_call) {
    Pool pool(2);
    const Fine fine;
    Refiner refiner(fine.network, functions(), pool);
    std::vector<int32_t> codes(3 * 20, 1);
    std::string error;
    try {
        refiner.refine({codes.data(), 20, 0, 1, kIds}, Draw(), [&] { logits(refiner); });
    } catch (const std::runtime_error& thrown) {
        error = thrown.what();
    }
    CHECK(error.find("a call within a call") != std::string::npos);
    CHECK(logits(refiner) == logits(refiner));
}
