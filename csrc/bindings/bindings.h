// Each function adds the bindings of one file of this folder to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace barkfast {

void bind_machine(pybind11::module_& m);
void bind_pack(pybind11::module_& m);
void bind_network(pybind11::module_& m);
void bind_decoder(pybind11::module_& m);
void bind_refiner(pybind11::module_& m);
void bind_codec(pybind11::module_& m);
void bind_measure(pybind11::module_& m);

}  // namespace barkfast
