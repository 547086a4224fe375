// Device-only instructions, one function each. All other code is plain C++, so that it can be tested anywhere.

typedef unsigned int u32;
typedef unsigned long long u64;

extern __shared__ __align__(128) char dynamic[];

#define INFINITE __int_as_float(0x7f800000)

struct alignas(2) Bfloat {
    unsigned short bits;
};
struct alignas(2) Half {
    unsigned short bits;
};
__device__ __forceinline__ void unpack(u32 pair, float& low, float& high, Half) {
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(pair));
}

__device__ __forceinline__ void store(Bfloat* p, float value) {
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(value));
}
__device__ __forceinline__ void store(Half* p, float value) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(p->bits) : "f"(value));
}

// 2**x; denormal results are 0.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// 1 / x with an error of at most one in the last bit, without the branch of an exact division.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Let the next kernel start; before its own wait it may only load what no kernel writes.
__device__ __forceinline__ void launch_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
// Wait until the kernels before this one have ended and their writes are visible. Every thread must call this.
__device__ __forceinline__ void wait_for_last() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

__device__ __forceinline__ u32 shared_address(const void* p) { return static_cast<u32>(__cvta_generic_to_shared(p)); }

// Load what other kernels write. With ONE_TRIP the load bypasses the L1 cache and is issued exactly here, so that all
// such loads overlap: the compiler would move plain loads behind the branches that use them.
__device__ __forceinline__ float fresh(const float* p) {
    if (!ONE_TRIP) return *p;
    float v;
    asm volatile("ld.relaxed.gpu.global.f32 %0, [%1];" : "=f"(v) : "l"(p) : "memory");
    return v;
}
__device__ __forceinline__ float4 fresh4(const float* p) {
    if (!ONE_TRIP) return *reinterpret_cast<const float4*>(p);
    float4 v;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ uint2 fresh2(const void* p) {
    if (!ONE_TRIP) return *static_cast<const uint2*>(p);
    uint2 v;
    asm volatile("ld.relaxed.gpu.global.v2.b32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
    return v;
}
__device__ __forceinline__ uint4 fresh_raw(const void* p) {
    if (!ONE_TRIP) return *static_cast<const uint4*>(p);
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.b32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ int fresh(const int* p) {
    if (!ONE_TRIP) return *p;
    int v;
    asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
}

// Count this block; returns how many blocks arrived before it. If all threads pass a barrier before this call and
// another one after it, a later block sees all that the threads of earlier blocks wrote before their call.
__device__ __forceinline__ u32 arrive(u32* counter) {
    u32 before;
    asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    return before;
}

// Prefetch constant memory into the L2 cache; address and size are multiples of 16 bytes.
__device__ __forceinline__ void prefetch(const void* from, u32 bytes) {
    asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(from), "r"(bytes) : "memory");
}

// Pending bulk copies into shared memory.
struct Copies {
    u64 barrier;

    __device__ void expect(u32 bytes) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(&barrier)) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        // The copy engine must see the barrier too.
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
                     "r"(bytes)
                     : "memory");
    }

    // `bytes` and both addresses are multiples of 16.
    __device__ void add(void* to, const void* from, u32 bytes) {
        constexpr u32 PIECE = 16384;
        for (u32 done = 0; done < bytes; done += PIECE) {
            u32 size = min(PIECE, bytes - done);
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                    shared_address(to) + done),
                "l"(static_cast<const char*>(from) + done), "r"(size), "r"(shared_address(&barrier))
                : "memory");
        }
    }

    __device__ void wait() {
        // With BOUNDED, copies that never arrive cause an error instead of a hang.
        u32 done = 0;
        for (u32 tries = 0; !done; tries++) {
            asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                         : "=r"(done)
                         : "r"(shared_address(&barrier))
                         : "memory");
            if (BOUNDED && tries > 1u << 20) asm volatile("trap;");
        }
    }
};
