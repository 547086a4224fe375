#include "scratch.h"

#include "buffer.h"

namespace barkfast {

uint8_t* thread_scratch(int64_t bytes) {
    thread_local Buffer<uint8_t> buffer;
    thread_local int64_t size = 0;
    if (size < bytes) {
        buffer = Buffer<uint8_t>(bytes);
        size = bytes;
    }
    return buffer.data();
}

}  // namespace barkfast
