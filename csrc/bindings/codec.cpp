#include "barkfast/codec.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "barkfast/isa.h"
#include "bindings.h"
#include "signals.h"

namespace py = pybind11;

namespace barkfast {
namespace {

using Codes = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

CodecConfig config_of(const py::object& from) {
    CodecConfig config;
    const auto read = [&from](const char* name, auto& value) {
        value = from.attr(name).cast<std::decay_t<decltype(value)>>();
    };
    read("n_codebooks", config.n_codebooks);
    read("codebook_size", config.codebook_size);
    read("dimension", config.dimension);
    read("n_filters", config.n_filters);
    read("ratios", config.ratios);
    read("kernel_size", config.kernel_size);
    read("last_kernel_size", config.last_kernel_size);
    read("residual_kernel_size", config.residual_kernel_size);
    read("n_residual_layers", config.n_residual_layers);
    read("dilation_base", config.dilation_base);
    read("compress", config.compress);
    read("n_lstm_layers", config.n_lstm_layers);
    read("conv_shortcut", config.conv_shortcut);
    read("trim_right_ratio", config.trim_right_ratio);
    return config;
}

// Array (frames * hop,) that takes over the vector's memory without a copy.
py::array_t<float> array_of(std::vector<float> samples) {
    auto owned = std::make_unique<std::vector<float>>(std::move(samples));
    const float* data = owned->data();
    const auto size = py::ssize_t(owned->size());
    const py::capsule keeper(owned.get(), [](void* p) { delete static_cast<std::vector<float>*>(p); });
    owned.release();
    return py::array_t<float>(size, data, keeper);
}

void check_shape(const Codes& codes) {
    if (codes.ndim() != 2)
        throw std::invalid_argument("codes have " + std::to_string(codes.ndim()) +
                                    " dimensions; expected (codebooks, frames)");
}

// A codec, and the pool that must outlive it.
class BoundCodec {
  public:
    BoundCodec(const py::object& config, const py::dict& weights, std::shared_ptr<Pool> pool, const std::string& isa)
        : pool_(std::move(pool)) {
        std::vector<py::array_t<float, py::array::c_style | py::array::forcecast>> arrays;
        std::map<std::string, Tensor> tensors;
        for (const auto& [name, value] : weights) {
            arrays.emplace_back(py::reinterpret_borrow<py::object>(value));
            const auto& array = arrays.back();
            tensors[name.cast<std::string>()] = {array.data(), {array.shape(), array.shape() + array.ndim()}};
        }
        const Isa level = isa.empty() ? choose_isa() : parse_isa(isa);
        codec_ = std::make_unique<Codec>(config_of(config), tensors, kernels(level), *pool_);
    }

    const Codec& codec() const { return *codec_; }

    py::array_t<float> decode(const Codes& codes) const {
        check_shape(codes);
        const int32_t* const from = codes.data();
        const int64_t codebooks = codes.shape(0), frames = codes.shape(1);
        std::vector<float> samples;
        {
            const py::gil_scoped_release unlocked;
            samples = codec_->decode(from, codebooks, frames, Signals());
        }
        return array_of(std::move(samples));
    }

  private:
    std::shared_ptr<Pool> pool_;
    std::unique_ptr<Codec> codec_;
};

class BoundStream {
  public:
    explicit BoundStream(std::shared_ptr<BoundCodec> codec) : codec_(std::move(codec)), stream_(codec_->codec()) {}

    py::array_t<float> push(const Codes& codes) {
        check_shape(codes);
        const int32_t* const from = codes.data();
        const int64_t codebooks = codes.shape(0), frames = codes.shape(1);
        std::vector<float> samples;
        {
            const py::gil_scoped_release unlocked;
            samples = stream_.push(from, codebooks, frames, Signals());
        }
        return array_of(std::move(samples));
    }

    py::array_t<float> finish() {
        std::vector<float> samples;
        {
            const py::gil_scoped_release unlocked;
            samples = stream_.finish(Signals());
        }
        return array_of(std::move(samples));
    }

  private:
    std::shared_ptr<BoundCodec> codec_;
    Codec::Stream stream_;
};

}  // namespace

void bind_codec(py::module_& m) {
    py::class_<BoundCodec, std::shared_ptr<BoundCodec>>(m, "Codec", "EnCodec's decoder in float32.")
        .def(py::init<const py::object&, const py::dict&, std::shared_ptr<Pool>, std::string>(), py::arg("config"),
             py::arg("weights"), py::arg("pool"), py::arg("isa") = "",
             "`config`: a CodecConfig; `weights`: the checkpoint's name -> float32 array, copied.")
        .def_property_readonly(
            "lead_in", [](const BoundCodec& codec) { return codec.codec().lead_in(); },
            "Frames that a stream needs before its first samples.")
        .def("decode", &BoundCodec::decode, py::arg("codes"), "(codebooks, frames) int32 to (samples,) float32.")
        .def(
            "stream", [](std::shared_ptr<BoundCodec> codec) { return std::make_unique<BoundStream>(std::move(codec)); },
            "Begin a stream: a clip whose codes arrive piece by piece.");
    py::class_<BoundStream>(m, "CodecStream", "One clip, decoded as its codes arrive.")
        .def("push", &BoundStream::push, py::arg("codes"),
             "Add (codebooks, frames) int32 codes; returns the samples that were not yet returned.")
        .def("finish", &BoundStream::finish, "End the stream; returns the remaining samples.");
}

}  // namespace barkfast
