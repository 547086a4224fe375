// Handles Ctrl-C and other signals during long native calls.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>

namespace barkfast {

// Each call runs Python's signal handlers if the last time was 50 ms ago or more, and throws what they raise. The
// calling thread must not hold the GIL.
class Signals {
  public:
    void operator()() {
        const auto now = std::chrono::steady_clock::now();
        if (now - last_ < kInterval) return;
        last_ = now;
        const pybind11::gil_scoped_acquire locked;
        if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
    }

  private:
    static constexpr std::chrono::milliseconds kInterval{50};
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

}  // namespace barkfast
