// Scratch memory of a thread for the length of a call.
#pragma once

#include <cstdint>

namespace barkfast {

// At least `bytes` bytes, aligned to a cache line, valid until this thread's next call.
uint8_t* thread_scratch(int64_t bytes);

}  // namespace barkfast
