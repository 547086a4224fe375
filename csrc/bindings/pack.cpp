#include "barkfast/pack.h"

#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "bindings.h"

namespace py = pybind11;

namespace barkfast {
namespace {

Format check_format(int format, Format last = Format::int4) {
    if (format < 0 || format > static_cast<int>(last))
        throw std::invalid_argument("format is " + std::to_string(format) + "; expected 0 to " +
                                    std::to_string(static_cast<int>(last)));
    return static_cast<Format>(format);
}

SourceType parse_source(const std::string& name) {
    if (name == "f32") return SourceType::f32;
    if (name == "bf16") return SourceType::bf16;
    if (name == "f16") return SourceType::f16;
    throw std::invalid_argument("the source's type is '" + name + "'; expected f32, bf16 or f16");
}

Source make_source(uintptr_t address, const std::string& type, int64_t rows, int64_t cols) {
    if (!address || rows < 1 || cols < 1)
        throw std::invalid_argument("a source of " + std::to_string(rows) + " x " + std::to_string(cols) +
                                    " numbers at address " + std::to_string(address) + "; expected at least one");
    return {parse_source(type), rows, cols, reinterpret_cast<const void*>(address)};
}

// Check a destination's address before anything is written to it.
void* target(uintptr_t address, uintptr_t alignment) {
    if (!address || address % alignment)
        throw std::invalid_argument("address " + std::to_string(address) + "; expected a multiple of " +
                                    std::to_string(alignment));
    return reinterpret_cast<void*>(address);
}

bool bind_pack_matrix(uintptr_t source, const std::string& type, int64_t rows, int64_t cols, int format,
                      uintptr_t panels, int threads) {
    const Source from = make_source(source, type, rows, cols);
    const Format to = check_format(format);
    void* const panels_at = target(panels, 1);
    const py::gil_scoped_release unlocked;
    return pack_matrix(from, to, panels_at, threads);
}

bool bind_pack_table(uintptr_t source, const std::string& type, int64_t rows, int64_t cols, int format, uintptr_t table,
                     int threads) {
    const Source from = make_source(source, type, rows, cols);
    const Format to = check_format(format, Format::bf16);
    void* const at = target(table, to == Format::bf16 ? 2 : 4);
    const py::gil_scoped_release unlocked;
    return pack_table(from, to, at, threads);
}

bool bind_pack_vector(uintptr_t source, const std::string& type, int64_t length, uintptr_t vector) {
    return pack_vector(make_source(source, type, 1, length), static_cast<float*>(target(vector, alignof(float))));
}

void bind_unpack_matrix(int format, int64_t rows, int64_t cols, uintptr_t panels, uintptr_t numbers) {
    Matrix matrix;
    matrix.format = check_format(format);
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.panels = static_cast<const uint8_t*>(target(panels, 1));
    matrix.panel_stride = panel_bytes(matrix.format, cols);
    float* const at = static_cast<float*>(target(numbers, alignof(float)));
    const py::gil_scoped_release unlocked;
    unpack_matrix(matrix, at);
}

int64_t bind_packed_bytes(int format, int64_t rows, int64_t cols) {
    return packed_bytes(check_format(format), rows, cols);
}

}  // namespace

void bind_pack(py::module_& m) {
    m.def("packed_bytes", &bind_packed_bytes, py::arg("format"), py::arg("rows"), py::arg("cols"),
          "Bytes of a matrix's panels in the format 0 f32, 1 bf16, 2 int8 or 3 int4.");
    m.def("pack_matrix", &bind_pack_matrix, py::arg("source"), py::arg("type"), py::arg("rows"), py::arg("cols"),
          py::arg("format"), py::arg("panels"), py::arg("threads"),
          "Fill a matrix's panels from (rows, cols) numbers of type f32, bf16 or f16; False if one is NaN or infinite. "
          "Source and panels are addresses.");
    m.def("pack_table", &bind_pack_table, py::arg("source"), py::arg("type"), py::arg("rows"), py::arg("cols"),
          py::arg("format"), py::arg("table"), py::arg("threads"),
          "Copy (rows, cols) numbers as f32 or bf16; False if one is NaN or infinite.");
    m.def("pack_vector", &bind_pack_vector, py::arg("source"), py::arg("type"), py::arg("length"), py::arg("vector"),
          "Copy numbers as f32, zero-padded to a multiple of 16; False if one is NaN or infinite.");
    m.def("unpack_matrix", &bind_unpack_matrix, py::arg("format"), py::arg("rows"), py::arg("cols"), py::arg("panels"),
          py::arg("numbers"), "Write the (rows, cols) numbers of a packed matrix as floats.");
}

}  // namespace barkfast
