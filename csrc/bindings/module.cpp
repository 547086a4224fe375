#include "bindings.h"

PYBIND11_MODULE(_native, m) {
    m.doc() = "Native code of barkfast.";
    // Must equal INTERFACE in barkfast/native.py; raise both with every change that Python code notices.
    m.attr("interface") = 4;
    barkfast::bind_machine(m);
    barkfast::bind_pack(m);
    barkfast::bind_network(m);
    barkfast::bind_decoder(m);
    barkfast::bind_refiner(m);
    barkfast::bind_codec(m);
    barkfast::bind_measure(m);
}
