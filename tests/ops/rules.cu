// One kernel that obeys all rules for a decode step's code, and one or more that break each; see test_step_rules.py.

#define START asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#define WAIT asm volatile("griddepcontrol.wait;" ::: "memory")

__device__ __forceinline__ float fresh(const float* p) {
    float value;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(value) : "l"(p) : "memory");
    return value;
}
__device__ __forceinline__ int fresh(const int* p) {
    int value;
    asm volatile("ld.global.cg.b32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
    return value;
}
extern "C" __global__ void __launch_bounds__(128)
    obeys(const float* weight, const float* x, const int* slots, float* out, int batch) {
    START;
    float w = weight[threadIdx.x];
    WAIT;
    // A loop over a batch of one is no branch that skips a load.
    for (int b = 0; b < batch; b++) {
        int running = fresh(slots + b);
        float y = fresh(x + b * 128 + threadIdx.x);
        if (running) out[b * 128 + threadIdx.x] = w * y;
    }
}

extern "C" __global__ void __launch_bounds__(128) never_waits(const float* x, float* out) {
    START;
    out[threadIdx.x] = fresh(x + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128) starts_late(const float* weight, const float* x, float* out) {
    float w = weight[threadIdx.x];
    START;
    WAIT;
    out[threadIdx.x] = w * fresh(x + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128) never_starts(const float* x, float* out) {
    WAIT;
    out[threadIdx.x] = fresh(x + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128) depends(const float* x, const int* slots, float* out) {
    START;
    WAIT;
    out[threadIdx.x] = fresh(x + fresh(slots) * 128 + threadIdx.x);
}

// The dependence goes through shared memory.
extern "C" __global__ void __launch_bounds__(128) depends_on_others(const float* x, const int* slots, float* out) {
    __shared__ int slot[128];
    START;
    WAIT;
    slot[threadIdx.x] = fresh(slots + threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = fresh(x + slot[threadIdx.x ^ 1] * 128 + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128) loads_one_by_one(const float* x, const float* q, float* out) {
    __shared__ float staged[128];
    START;
    WAIT;
    staged[threadIdx.x] = fresh(x + threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = staged[threadIdx.x ^ 1] * fresh(q + threadIdx.x);
}

extern "C" __global__ void __launch_bounds__(128) loads_by_l1(const float* x, const float* q, float* out) {
    START;
    WAIT;
    out[threadIdx.x] = fresh(x + threadIdx.x) * q[threadIdx.x];
}

// The load through L1 is not on the critical path: the other branch takes longer.
extern "C" __global__ void __launch_bounds__(128)
    loads_by_l1_elsewhere(const float* x, const float* q, float* out, int n) {
    START;
    WAIT;
    float y = fresh(x + threadIdx.x);
    if (n & 1) {
        // The sleep keeps the compiler from moving this work ahead of the branch.
        __nanosleep(1);
        out[threadIdx.x] = q[threadIdx.x];
    } else
        for (int i = 0; i < 8; i++) out[128 * i + threadIdx.x] = y * i;
}

extern "C" __global__ void __launch_bounds__(128) skips(const float* x, float* out, int limit) {
    START;
    WAIT;
    if (static_cast<int>(blockIdx.x) >= limit) return;
    float y = fresh(x + threadIdx.x);
    __syncthreads();
    out[threadIdx.x] = y;
}

__device__ __noinline__ float half_of(float value) { return value * 0.5f + threadIdx.x; }
extern "C" __global__ void __launch_bounds__(128) calls(const float* x, float* out) {
    START;
    WAIT;
    out[threadIdx.x] = half_of(fresh(x + threadIdx.x));
}

extern "C" __global__ void __launch_bounds__(128) takes_registers(const float* x, float* out) {
    START;
    WAIT;
    float all[96];
#pragma unroll
    for (int i = 0; i < 96; i++) all[i] = fresh(x + 128 * i + threadIdx.x);
#pragma unroll
    for (int i = 0; i < 96; i++) out[128 * i + threadIdx.x] = all[i] * all[95 - i] + all[(i * 7) % 96];
}

extern "C" __global__ void __launch_bounds__(128) spills(const float* x, float* out, int turn) {
    START;
    WAIT;
    float all[64];
#pragma unroll
    for (int i = 0; i < 64; i++) all[i * turn & 63] = fresh(x + 128 * i + threadIdx.x);
    out[threadIdx.x] = all[turn & 63] + all[threadIdx.x & 63];
}
