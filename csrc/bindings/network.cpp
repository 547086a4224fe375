#include "barkfast/network.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <stdexcept>
#include <tuple>

#include "barkfast/kv.h"
#include "bindings.h"

namespace py = pybind11;

namespace barkfast {
namespace {

std::vector<Entry> entries_of(const py::list& list) {
    using Fields = std::tuple<std::string, std::string, int, int64_t, int64_t, uintptr_t>;
    std::vector<Entry> entries;
    for (const py::handle item : list) {
        Fields fields;
        try {
            fields = item.cast<Fields>();
        } catch (const py::cast_error&) {
            throw std::invalid_argument("weights: " + std::string(py::repr(item)) +
                                        "; expected (name, kind, format, rows, cols, address)");
        }
        Entry entry;
        uintptr_t data;
        std::tie(entry.name, entry.kind, entry.format, entry.rows, entry.cols, data) = fields;
        entry.data = reinterpret_cast<const void*>(data);
        entries.push_back(std::move(entry));
    }
    return entries;
}

}  // namespace

void bind_network(py::module_& m) {
    py::class_<Network, std::shared_ptr<Network>>(m, "Network", "A GPT's weights, in memory that the caller owns.")
        .def(py::init([](int64_t n_layer, int64_t n_head, int64_t n_embd, int64_t block_size, const py::list& entries) {
                 return build_network({n_layer, n_head, n_embd, block_size}, entries_of(entries));
             }),
             py::arg("n_layer"), py::arg("n_head"), py::arg("n_embd"), py::arg("block_size"), py::arg("entries"),
             "`entries`: a list of (name, kind, format, rows, cols, address).")
        .def_property_readonly(
            "cache_format", [](const Network& network) { return int(network.cache_format()); },
            "Format of the KV cache: 0 for float32, 1 for bfloat16, 2 for int8.");
    m.def("cache_capacity", &cache_capacity, py::arg("block_size"),
          "Capacity, in positions, of a cache for `block_size` positions.");
}

}  // namespace barkfast
