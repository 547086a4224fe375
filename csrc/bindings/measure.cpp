#include "barkfast/measure.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "bindings.h"

namespace py = pybind11;

namespace barkfast {
namespace {

Format parse_format(const std::string& name) {
    if (name == "f32") return Format::f32;
    if (name == "bf16") return Format::bf16;
    if (name == "int8") return Format::int8;
    if (name == "int4") return Format::int4;
    throw std::invalid_argument("format is '" + name + "'; expected f32, bf16, int8 or int4");
}

void check_repeats(int repeats) {
    if (repeats < 1) throw std::invalid_argument("repeats is " + std::to_string(repeats) + "; expected 1 or more");
}

py::dict to_dict(const Times& times) {
    py::dict d;
    d["copies"] = times.copies;
    d["bytes"] = times.bytes;
    d["seconds"] = times.seconds;
    d["read_seconds"] = times.read_seconds;
    return d;
}

py::list bind_reads(int64_t bytes, bool large_pages, int threads, int repeats) {
    check_repeats(repeats);
    std::vector<double> seconds;
    {
        const py::gil_scoped_release unlocked;
        Pool pool(threads);
        seconds = time_reads(pool, bytes, large_pages, repeats);
    }
    return py::cast(seconds);
}

py::dict bind_linear(const std::string& format, int64_t rows, int64_t cols, int64_t inputs, int64_t least_bytes,
                     bool large_pages, int threads, int repeats, const std::string& isa) {
    check_repeats(repeats);
    const LinearCase what{parse_format(format), rows, cols, inputs, least_bytes, large_pages};
    const Kernels& functions = kernels(isa.empty() ? choose_isa() : parse_isa(isa));
    Times times;
    {
        const py::gil_scoped_release unlocked;
        Pool pool(threads);
        times = time_linear(pool, functions, what, repeats);
    }
    return to_dict(times);
}

py::dict bind_attend(const std::string& format, int64_t n_head, int64_t head_dim, int64_t positions,
                     int64_t least_bytes, int threads, int repeats) {
    check_repeats(repeats);
    const AttendCase what{parse_format(format), n_head, head_dim, positions, least_bytes};
    const Kernels& functions = kernels(choose_isa());
    Times times;
    {
        const py::gil_scoped_release unlocked;
        Pool pool(threads);
        times = time_attend(pool, functions, what, repeats);
    }
    return to_dict(times);
}

}  // namespace

void bind_measure(py::module_& m) {
    m.def("time_reads", &bind_reads, py::arg("bytes"), py::arg("large_pages"), py::arg("threads"), py::arg("repeats"),
          "Seconds of each pass that reads `bytes` bytes of memory.");
    m.def("time_linear", &bind_linear, py::arg("format"), py::arg("rows"), py::arg("cols"), py::arg("inputs"),
          py::arg("least_bytes"), py::arg("large_pages"), py::arg("threads"), py::arg("repeats"), py::arg("isa") = "",
          "Time products of a matrix (f32, bf16, int8 or int4) with rows of inputs, over copies of `least_bytes` or "
          "more in all: {copies, bytes of one, seconds per product of each pass, read_seconds: the same for reads}.");
    m.def(
        "time_attend", &bind_attend, py::arg("format"), py::arg("n_head"), py::arg("head_dim"), py::arg("positions"),
        py::arg("least_bytes"), py::arg("threads"), py::arg("repeats"),
        "Time one query's attention over a cache in the format f32, bf16 or int8, layer after layer: {copies, bytes of "
        "one, seconds per layer of each pass}.");
}

}  // namespace barkfast
