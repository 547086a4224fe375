// The CPU's instruction sets and the thread pool.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <string>
#include <vector>

#include "barkfast/cpu_features.h"
#include "barkfast/isa.h"
#include "barkfast/pool.h"
#include "bindings.h"

namespace py = pybind11;

namespace barkfast {
namespace {

py::dict cpu_features_dict() {
    const CpuFeatures& f = cpu_features();
    py::dict d;
    d["avx2"] = f.avx2;
    d["fma"] = f.fma;
    d["f16c"] = f.f16c;
    d["avx_vnni"] = f.avx_vnni;
    d["avx512f"] = f.avx512f;
    d["avx512bw"] = f.avx512bw;
    d["avx512_vnni"] = f.avx512_vnni;
    d["avx512_bf16"] = f.avx512_bf16;
    d["avx512_fp16"] = f.avx512_fp16;
    d["amx_tile"] = f.amx_tile;
    d["amx_bf16"] = f.amx_bf16;
    d["amx_int8"] = f.amx_int8;
    d["neon"] = f.neon;
    return d;
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (Isa isa : all_isas())
        if (isa_supported(isa)) names.push_back(isa_name(isa));
    return names;
}

}  // namespace

void bind_machine(py::module_& m) {
    m.def("cpu_features", &cpu_features_dict,
          "Instruction sets by their Linux names: name -> whether this CPU has it and the system allows it.");
    m.def("supported_isas", &supported_isas, "Instruction-set levels that can run here, slowest first.");
    m.def(
        "choose_isa", [] { return std::string(isa_name(choose_isa())); },
        "The level that $BARKFAST_CPU_ISA names, or else the best. Raises: ValueError if it cannot run here.");
    py::class_<Pool, std::shared_ptr<Pool>>(m, "Pool", "A thread pool; the calling thread is one of its threads.")
        .def(py::init<int>(), py::arg("threads"))
        .def_property_readonly("size", &Pool::size);
}

}  // namespace barkfast
