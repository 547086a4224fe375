#include "barkfast/decoder.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "barkfast/isa.h"
#include "bindings.h"
#include "signals.h"

namespace py = pybind11;

namespace barkfast {
namespace {

using Tokens = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

std::vector<int32_t> vector_of(const Tokens& tokens) { return {tokens.data(), tokens.data() + tokens.size()}; }

// A decoder, and the network and pool that must outlive it.
class BoundDecoder {
  public:
    BoundDecoder(std::shared_ptr<Network> network, std::shared_ptr<Pool> pool, int64_t n_slots, uintptr_t keys,
                 uintptr_t values, const std::string& isa)
        : network_(std::move(network)), pool_(std::move(pool)) {
        KvCache cache;
        cache.format = network_->cache_format();
        cache.n_layer = network_->n_layer;
        cache.n_slots = n_slots;
        cache.n_head = network_->n_head;
        cache.head_dim = network_->head_dim();
        cache.capacity = cache_capacity(network_->block_size);
        cache.key_data = reinterpret_cast<uint8_t*>(keys);
        cache.value_data = reinterpret_cast<uint8_t*>(values);
        const Isa level = isa.empty() ? choose_isa() : parse_isa(isa);
        decoder_ = std::make_unique<Decoder>(*network_, cache, kernels(level), *pool_);
    }

    void prefill(int64_t slot, const Tokens& prompt, int64_t n_merged) {
        const std::vector<int32_t> tokens = vector_of(prompt);
        const py::gil_scoped_release unlocked;
        decoder_->prefill(slot, tokens.data(), int64_t(tokens.size()), n_merged);
    }

    void start(int64_t slot, const Tokens& fed, int64_t steps, const std::vector<std::pair<int32_t, int32_t>>& slices,
               float temperature, int32_t top_k, float top_p, uint64_t seed, uint32_t stage, uint32_t number,
               py::object stop, float min_p) {
        Request request;
        request.fed = vector_of(fed);
        request.steps = steps;
        for (const auto& [first, end] : slices) request.slices.push_back({first, end});
        request.draw = {temperature, top_k, top_p, seed, stage, number};
        request.has_stop = !stop.is_none();
        if (request.has_stop) request.stop = stop.cast<int32_t>();
        request.min_p = min_p;
        decoder_->start(slot, request);
    }

    void pause(int64_t slot) { decoder_->pause(slot); }

    int64_t advance(const std::vector<int64_t>& slots, int64_t max_steps, double seconds) {
        const py::gil_scoped_release unlocked;
        return decoder_->advance(slots, max_steps, seconds, Signals());
    }

    // 0 idle, 1 running, 2 finished, 3 stopped, 4 failed; and the number of tokens drawn.
    std::pair<int, int64_t> state(int64_t slot) const {
        const auto [status, drawn] = decoder_->state(slot);
        return {int(status), drawn};
    }

    int64_t length(int64_t slot) const { return decoder_->length(slot); }

    py::array_t<int32_t> tokens(int64_t slot) const { return array_of(decoder_->tokens(slot)); }

    py::array_t<float> logits(int64_t slot) const { return array_of(decoder_->logits(slot)); }

  private:
    template <class T>
    static py::array_t<T> array_of(const std::vector<T>& numbers) {
        return py::array_t<T>(py::ssize_t(numbers.size()), numbers.data());
    }

    std::shared_ptr<Network> network_;
    std::shared_ptr<Pool> pool_;
    std::unique_ptr<Decoder> decoder_;
};

}  // namespace

void bind_decoder(py::module_& m) {
    py::class_<BoundDecoder>(m, "Decoder", "Samples tokens from a GPT, for a batch of sequences.")
        .def(py::init<std::shared_ptr<Network>, std::shared_ptr<Pool>, int64_t, uintptr_t, uintptr_t, std::string>(),
             py::arg("network"), py::arg("pool"), py::arg("n_slots"), py::arg("keys"), py::arg("values"),
             py::arg("isa") = "", "`keys` and `values`: addresses of the cache, see kv.h.")
        .def("prefill", &BoundDecoder::prefill, py::arg("slot"), py::arg("prompt"), py::arg("n_merged") = 0,
             "Reset a slot and prefill a prompt.")
        .def("start", &BoundDecoder::start, py::arg("slot"), py::arg("fed"), py::arg("steps"), py::arg("slices"),
             py::kw_only(), py::arg("temperature") = 0.0f, py::arg("top_k") = 0, py::arg("top_p") = 2.0f,
             py::arg("seed") = 0, py::arg("stage") = 0, py::arg("number") = 0, py::arg("stop") = py::none(),
             py::arg("min_p") = 2.0f, "Start a sequence that continues from the slot's content; `fed` is read first.")
        .def("pause", &BoundDecoder::pause, py::arg("slot"), "End the slot's sequence.")
        .def("advance", &BoundDecoder::advance, py::arg("slots"), py::arg("max_steps"), py::arg("seconds"),
             "Run decode steps until a sequence ends, at most `max_steps` or `seconds`; returns the number of steps.")
        .def("state", &BoundDecoder::state, py::arg("slot"),
             "(0 idle, 1 running, 2 finished, 3 stopped or 4 failed; the number of tokens drawn so far).")
        .def("tokens", &BoundDecoder::tokens, py::arg("slot"), "The tokens drawn so far, int32.")
        .def("logits", &BoundDecoder::logits, py::arg("slot"),
             "Logits of the slot's last draw, float32; the stop token's logit comes last.")
        .def("length", &BoundDecoder::length, py::arg("slot"), "Number of positions in the slot's cache.");
}

}  // namespace barkfast
