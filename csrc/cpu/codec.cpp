#include "barkfast/codec.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "codec_work.h"
#include "product.h"

namespace barkfast {

namespace {

// Enough rows to amortize reading the first layers' matrices, few enough for the last layers' rows to stay in cache.
constexpr int64_t kBlockFrames = 32;

void check(const CodecConfig& config) {
    const std::pair<const char*, int64_t> sizes[] = {
        {"n_codebooks", config.n_codebooks},
        {"codebook_size", config.codebook_size},
        {"dimension", config.dimension},
        {"n_filters", config.n_filters},
        {"kernel_size", config.kernel_size},
        {"last_kernel_size", config.last_kernel_size},
        {"residual_kernel_size", config.residual_kernel_size},
        {"dilation_base", config.dilation_base},
        {"compress", config.compress},
        {"n_lstm_layers", config.n_lstm_layers},
    };
    for (const auto& [name, value] : sizes)
        if (value < 1)
            throw std::invalid_argument("the codec's " + std::string(name) + " is " + std::to_string(value) +
                                        ", expected at least 1");
    for (const int64_t ratio : config.ratios)
        if (ratio < 1) throw std::invalid_argument("the codec has an upsampling ratio of " + std::to_string(ratio));
    if (config.n_filters < config.compress)
        throw std::invalid_argument("the codec's n_filters is " + std::to_string(config.n_filters) +
                                    ", less than compress, " + std::to_string(config.compress));
    if (config.n_residual_layers < 0)
        throw std::invalid_argument("the codec's n_residual_layers is " + std::to_string(config.n_residual_layers));
    if (config.trim_right_ratio != 1)
        throw std::invalid_argument("the codec's trim_right_ratio is " + std::to_string(config.trim_right_ratio) +
                                    ", but the native codec sees only the past, which is a ratio of 1");
}

}  // namespace

Codec::Layers::Layers(const CodecConfig& config, const std::map<std::string, Tensor>& tensors, const Kernels& kernels,
                      Pool& pool)
    : kernels_(kernels), pool_(pool) {
    check(config);
    const CodecWeights weights(tensors);
    n_codebooks = config.n_codebooks;
    codebook_size = config.codebook_size;
    dimension_ = config.dimension;
    for (int64_t i = 0; i < n_codebooks; ++i) {
        const std::string name = "quantizer.layers." + std::to_string(i) + ".codebook.embed";
        const float* table = weights.get(name, {codebook_size, dimension_});
        tables_.emplace_back(codebook_size * dimension_);
        std::copy_n(table, codebook_size * dimension_, tables_.back().data());
    }

    // Frames that a convolution's reflected left padding needs.
    const auto look_ahead = [](int64_t kernel, int64_t dilation, int64_t rows) {
        return ceil_div((kernel - 1) * dilation + 1, rows);
    };
    lead_in = look_ahead(config.kernel_size, 1, 1);
    for (const int64_t ratio : config.ratios) {
        hop *= ratio;
        for (int64_t j = 0, dilation = 1; j < config.n_residual_layers; ++j, dilation *= config.dilation_base)
            lead_in = std::max(lead_in, look_ahead(config.residual_kernel_size, dilation, hop));
    }
    lead_in = std::max(lead_in, look_ahead(config.last_kernel_size, 1, hop));
    block_frames = std::max(kBlockFrames, lead_in);

    // Layers are numbered as in the checkpoint, which counts activations too.
    const auto name = [](int64_t layer) { return "decoder.layers." + std::to_string(layer); };
    int64_t width = config.n_filters << config.ratios.size(), rows = block_frames;
    first_ = build_convolution(weights, name(0), config.dimension, width, config.kernel_size, 1, rows);
    for (int64_t i = 0; i < config.n_lstm_layers; ++i)
        lstm_.push_back(build_lstm(weights, name(1) + ".lstm", i, width, rows));
    wide_ = Buffer<float>(rows * fill_up(width));
    gates_ = Buffer<float>(rows * 4 * fill_up(width));
    int64_t layer = 2, raw = 0, hidden = 0;
    for (const int64_t ratio : config.ratios) {
        Stage stage;
        stage.upsampling = build_upsampling(weights, name(layer + 1), width, width / 2, ratio, rows);
        layer += 2;
        width /= 2;
        rows *= ratio;
        for (int64_t j = 0, dilation = 1; j < config.n_residual_layers; ++j, dilation *= config.dilation_base) {
            const std::string block_name = name(layer++);
            const int64_t inner = width / config.compress;
            ResidualBlock block;
            block.first = build_convolution(weights, block_name + ".block.1", width, inner, config.residual_kernel_size,
                                            dilation, rows);
            block.hidden = fill_up(inner);
            block.second = build_pointwise(weights, block_name + ".block.3", inner, width);
            if (config.conv_shortcut) block.shortcut = build_pointwise(weights, block_name + ".shortcut", width, width);
            hidden = std::max(hidden, block.hidden);
            stage.blocks.push_back(std::move(block));
        }
        raw = std::max(raw, rows * fill_up(width));
        stages_.push_back(std::move(stage));
    }
    last_ = build_last_convolution(weights, name(layer + 1), width, config.last_kernel_size, rows);
    for (auto& buffer : raw_) buffer = Buffer<float>(raw);
    for (int i = 0; i < pool.size(); ++i) hidden_.emplace_back(kRowBlock * hidden);
    samples_ = Buffer<float>(round_up(rows, kLastSamples));

    const auto remember = [this](const LayerInput& window, int64_t rows_per_frame) {
        remembered_.push_back({&window, rows_per_frame});
        memory_floats += window.history_floats();
    };
    int64_t rate = 1;
    remember(first_.input, rate);
    for (const Lstm& lstm : lstm_) {
        remember(lstm.hidden, rate);
        memory_floats += lstm.hidden.channels;
    }
    for (const Stage& stage : stages_) {
        remember(stage.upsampling.input, rate);
        rate *= stage.upsampling.stride;
        for (const ResidualBlock& block : stage.blocks) remember(block.first.input, rate);
    }
    remember(last_.input, rate);
}

Codec::Codec(const CodecConfig& config, const std::map<std::string, Tensor>& weights, const Kernels& kernels,
             Pool& pool)
    : layers_(std::make_unique<Layers>(config, weights, kernels, pool)) {}

Codec::~Codec() = default;

int64_t Codec::hop() const { return layers_->hop; }

int64_t Codec::lead_in() const { return layers_->lead_in; }

}  // namespace barkfast
