#include <pybind11/pybind11.h>

#include "barkfast/cpu_features.h"

namespace py = pybind11;

namespace {

py::dict cpu_features_dict() {
    const barkfast::CpuFeatures& f = barkfast::cpu_features();
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

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "Native code of barkfast.";
    m.def("cpu_features", &cpu_features_dict,
          "Instruction sets by their Linux names: name -> whether this CPU has it and the system allows it.");
}
