// Zero-initialized memory of one type, aligned to a cache line. Pages that are never touched take no memory.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace barkfast {

template <class T>
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(int64_t n) : memory_(std::calloc(size_t(n) * sizeof(T) + kAlignment, 1)) {
        if (!memory_) throw std::bad_alloc();
        const uintptr_t start = reinterpret_cast<uintptr_t>(memory_.get());
        data_ = reinterpret_cast<T*>((start + kAlignment - 1) / kAlignment * kAlignment);
    }
    T* data() const { return data_; }
    T& operator[](int64_t i) const { return data_[i]; }

  private:
    static constexpr uintptr_t kAlignment = 64;
    struct Free {
        void operator()(void* p) const { std::free(p); }
    };
    std::unique_ptr<void, Free> memory_;
    T* data_ = nullptr;
};

}  // namespace barkfast
