// The classes that process many positions at once: the fine network, and a GPT's prompt.
#include "barkfast/refiner.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "barkfast/isa.h"
#include "barkfast/trunk.h"
#include "bindings.h"
#include "signals.h"

namespace py = pybind11;

namespace barkfast {
namespace {

using Ids = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;

const Kernels& kernels_of(const std::string& isa) { return kernels(isa.empty() ? choose_isa() : parse_isa(isa)); }

// A refiner, and the network and pool that must outlive it.
class BoundRefiner {
  public:
    BoundRefiner(std::shared_ptr<Network> network, std::shared_ptr<Pool> pool, const std::string& isa)
        : network_(std::move(network)), pool_(std::move(pool)), refiner_(*network_, kernels_of(isa), *pool_) {}

    // The filled window, or None.
    py::object refine(const Ids& codes, int64_t first_frame, int64_t first_codebook, int64_t codebook_size,
                      float temperature, uint64_t seed, uint32_t number) {
        const int64_t frames = count_frames(codes);
        Ids filled({codes.shape(0), codes.shape(1)});
        std::copy(codes.data(), codes.data() + codes.size(), filled.mutable_data());
        const Window window{filled.mutable_data(), frames, first_frame, first_codebook, codebook_size};
        Draw draw;
        draw.temperature = temperature;
        draw.seed = seed;
        draw.stage = 2;
        draw.number = number;
        bool finite;
        {
            const py::gil_scoped_release unlocked;
            finite = refiner_.refine(window, draw, Signals());
        }
        return finite ? py::object(std::move(filled)) : py::none();
    }

    py::array_t<float> logits(const Ids& codes, int64_t codebook) {
        const int64_t frames = count_frames(codes);
        py::array_t<float> result({frames, refiner_.vocabulary()});
        // Another thread may write to the caller's array after it was checked.
        const std::vector<int32_t> own(codes.data(), codes.data() + codes.size());
        float* const to = result.mutable_data();
        const py::gil_scoped_release unlocked;
        refiner_.logits(own.data(), frames, codebook, to);
        return result;
    }

  private:
    int64_t count_frames(const Ids& codes) const {
        if (codes.ndim() == 2 && codes.shape(1) == refiner_.n_codebooks()) return codes.shape(0);
        throw std::invalid_argument("codes of shape " + std::string(py::repr(codes.attr("shape"))) +
                                    "; expected (frames, " + std::to_string(refiner_.n_codebooks()) + ")");
    }

    std::shared_ptr<Network> network_;
    std::shared_ptr<Pool> pool_;
    Refiner refiner_;
};

// A trunk with a cache of one slot.
class BoundTrunk {
  public:
    BoundTrunk(std::shared_ptr<Network> network, std::shared_ptr<Pool> pool, uintptr_t keys, uintptr_t values,
               const std::string& isa)
        : network_(std::move(network)), pool_(std::move(pool)), trunk_(*network_, kernels_of(isa), *pool_) {
        cache_.format = network_->cache_format();
        cache_.n_layer = network_->n_layer;
        cache_.n_slots = 1;
        cache_.n_head = network_->n_head;
        cache_.head_dim = network_->head_dim();
        cache_.capacity = cache_capacity(network_->block_size);
        cache_.key_data = reinterpret_cast<uint8_t*>(keys);
        cache_.value_data = reinterpret_cast<uint8_t*>(values);
    }

    py::array_t<float> prefill(const Ids& prompt, int64_t n_merged) {
        const std::vector<int32_t> tokens(prompt.data(), prompt.data() + prompt.size());
        py::array_t<float> hidden(network_->n_embd);
        float* const to = hidden.mutable_data();
        const py::gil_scoped_release unlocked;
        trunk_.prefill(tokens.data(), int64_t(tokens.size()), n_merged, cache_, 0, to);
        return hidden;
    }

  private:
    std::shared_ptr<Network> network_;
    std::shared_ptr<Pool> pool_;
    KvCache cache_;
    Trunk trunk_;
};

}  // namespace

void bind_refiner(py::module_& m) {
    py::class_<BoundRefiner>(m, "Refiner", "Fills the codebooks of a window with the fine network.")
        .def(py::init<std::shared_ptr<Network>, std::shared_ptr<Pool>, std::string>(), py::arg("network"),
             py::arg("pool"), py::arg("isa") = "")
        .def("refine", &BoundRefiner::refine, py::arg("codes"), py::arg("first_frame"), py::arg("first_codebook"),
             py::arg("codebook_size"), py::kw_only(), py::arg("temperature") = 0.0f, py::arg("seed") = 0,
             py::arg("number") = 0,
             "The (frames, codebooks) int32 codes, filled from `first_frame` and `first_codebook` on; None if logits "
             "are not finite. `number`: the index of the first draw.")
        .def("logits", &BoundRefiner::logits, py::arg("codes"), py::arg("codebook"),
             "Logits of one codebook, (frames, vocabulary) float32.");
    py::class_<BoundTrunk>(m, "Trunk", "A GPT's layers over whole prompts, with a cache of one slot.")
        .def(py::init<std::shared_ptr<Network>, std::shared_ptr<Pool>, uintptr_t, uintptr_t, std::string>(),
             py::arg("network"), py::arg("pool"), py::arg("keys"), py::arg("values"), py::arg("isa") = "",
             "`keys` and `values`: addresses of the cache, see kv.h.")
        .def("prefill", &BoundTrunk::prefill, py::arg("prompt"), py::arg("n_merged") = 0,
             "Fill the cache from a prompt's tokens; returns the last position's hidden state, (n_embd,) float32.");
}

}  // namespace barkfast
