// Memory that a thread keeps for the length of a call.
#pragma once

#include <cstdint>

namespace barkfast {

// At least so many bytes, on a cache line's boundary, this thread's own until it asks again.
uint8_t* thread_scratch(int64_t bytes);

}  // namespace barkfast
