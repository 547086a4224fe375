// Time of one exchange between all blocks of a persistent kernel: idle, and while weights stream through it.
#pragma once
#include "common.cuh"

// How a block knows that the others have written: a counter, a flag per block, or words that contain their phase.
enum Exchange { COUNTER, FLAGS, WORDS };

constexpr int WORKERS = 256, STAGES = 8, PHASES = 4000, ROUNDS = 4, FLAG_STRIDE = 8;
constexpr u64 GIVE_UP_NS = 2000000000ull;

__device__ u32 stuck;

__device__ __forceinline__ void workers_sync() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// Whether a spin has taken too long.
__device__ __forceinline__ bool give_up(u64 begin) {
    if (now() - begin < GIVE_UP_NS) return false;
    stuck = 1;
    return true;
}

__device__ __forceinline__ void await(const u32* counter, u32 least, u64 begin) {
    u32 seen;
    do asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(counter) : "memory");
    while (seen < least && !give_up(begin));
}

// Streams bulk copies until the workers stop; returns how many.
__device__ u32 stream_weights(u64* barriers, const volatile int* stop, const char* w, size_t bytes) {
    size_t piece = blockIdx.x;
    u32 count = 0;
    for (; !*stop; count++, piece += gridDim.x) {
        const int stage = count % STAGES;
        if (count >= STAGES) barrier_wait(&barriers[stage], (count / STAGES - 1) & 1);
        barrier_expect(&barriers[stage], PIECE);
        bulk_copy(dynamic_shared + stage * PIECE, w + piece * PIECE % bytes, PIECE, &barriers[stage]);
    }
    for (u32 i = count > STAGES ? count - STAGES : 0; i < count; i++)
        barrier_wait(&barriers[i % STAGES], (i / STAGES) & 1);
    return count;
}

// 8-byte words of value and phase: each is written and read atomically, and nothing is ever cleared.
__device__ float exchange_words(u64* words, int n, int per, u32 phase, float value, u64 begin) {
    const int t = threadIdx.x;
    float sum = 0;
    if (t < per)
        asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(words + blockIdx.x * per + t),
                     "l"((u64)phase << 32 | __float_as_uint(value))
                     : "memory");
    for (int i = 2 * t; i < n; i += 2 * WORKERS) {
        u64 x, y;
        do asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];" : "=l"(x), "=l"(y) : "l"(words + i) : "memory");
        while ((u32(x >> 32) != phase || u32(y >> 32) != phase) && !give_up(begin));
        sum += __uint_as_float((u32)x) + __uint_as_float((u32)y);
    }
    workers_sync();
    return sum;
}

template <int HOW>
__device__ float exchange_floats(float* values, u32* flags, int n, int per, u32 phase, float value, u64 begin) {
    const int t = threadIdx.x, blocks = gridDim.x;
    float sum = 0;
    if (t < per) store(values + blockIdx.x * per + t, value);
    workers_sync();
    if (HOW == COUNTER && t == 0) {
        asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(flags) : "memory");
        await(flags, phase * blocks, begin);
    }
    if (HOW == FLAGS) {
        u32* own = flags + FLAG_STRIDE * blockIdx.x;
        if (t == 0) asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(own), "r"(phase) : "memory");
        if (t < blocks) await(flags + FLAG_STRIDE * t, phase, begin);
    }
    workers_sync();
    for (int i = 4 * t; i < n; i += 4 * WORKERS) {
        const float4 v = load_fresh(values + i);
        sum += v.x + v.y + v.z + v.w;
    }
    return sum;
}

// Exchange n values, the same number from each block. LOADED: a ninth warp streams weights at the same time.
template <int HOW, bool LOADED>
__global__ void __launch_bounds__(WORKERS + 32)
    exchange(float* buffer, u32* flags, int n, int phases, const char* w, size_t bytes, float* out) {
    __shared__ u64 barriers[STAGES];
    __shared__ volatile int stop;
    const int per = n / gridDim.x, t = threadIdx.x;
    if (t == 0) {
        stop = 0;
        for (int i = 0; i < STAGES; i++) barrier_init(&barriers[i]);
        barrier_init_done();
    }
    __syncthreads();
    if (t >= WORKERS) {
        if (LOADED && t == WORKERS) out[blockIdx.x] = stream_weights(barriers, &stop, w, bytes);
        return;
    }
    const u64 begin = now();
    float sum = 0;
    for (int phase = 1; phase <= phases; phase++) {
        // Two alternating buffers suffice: a block that is two phases ahead has read all of the phase between. The
        // value depends on the sum, as a layer's input depends on the previous layer's output.
        const float value = 1.0f + sum * 0.f;
        if (HOW == WORDS)
            sum += exchange_words((u64*)buffer + (phase & 1) * n, n, per, phase, value, begin);
        else
            sum += exchange_floats<HOW>(buffer + (phase & 1) * n, flags, n, per, phase, value, begin);
    }
    if (t == 0) stop = 1;
    sum = warp_sum(sum);
    if (t == 0) out[256 + blockIdx.x] = sum;
}

template <int HOW, bool LOADED>
void exchanges(int n, int blocks) {
    float *buffer, *out;
    u32 *flags, bad = 0;
    const int buffer_bytes = 2 * n * sizeof(u64), shared_bytes = LOADED ? STAGES * PIECE : 0;
    CHECK(cudaMalloc(&buffer, buffer_bytes));
    CHECK(cudaMalloc(&flags, 65536));
    CHECK(cudaMalloc(&out, 4096));
    CHECK(cudaMemcpyToSymbol(stuck, &bad, sizeof(bad)));
    CHECK(cudaFuncSetAttribute(exchange<HOW, LOADED>, cudaFuncAttributeMaxDynamicSharedMemorySize, STAGES * PIECE));
    float best_ms = 1e9;
    double copies = 0;
    bool right = true;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(cudaMemset(buffer, 0, buffer_bytes));
        CHECK(cudaMemset(flags, 0, 65536));
        CHECK(cudaMemset(out, 0, 4096));
        const char* w = weights;
        size_t bytes = WEIGHT_BYTES;
        int phases = PHASES, count = n;
        void* args[] = {&buffer, &flags, &count, &phases, &w, &bytes, &out};
        const float ms = time_ms([&] {
            CHECK(cudaLaunchCooperativeKernel((void*)exchange<HOW, LOADED>, dim3(blocks), dim3(WORKERS + 32), args,
                                              shared_bytes, stream));
        });
        std::vector<float> found(512);
        CHECK(cudaMemcpy(found.data(), out, found.size() * sizeof(float), cudaMemcpyDeviceToHost));
        // The sum of one warp: each value is 1, and a thread adds n / 256 of them per phase.
        for (int i = 0; i < blocks; i++) right = right && found[256 + i] == (float)PHASES * (n / WORKERS) * 32;
        if (ms < best_ms) {
            best_ms = ms;
            copies = 0;
            for (int i = 0; i < blocks; i++) copies += found[i];
        }
    }
    CHECK(cudaMemcpyFromSymbol(&bad, stuck, sizeof(bad)));
    printf(
        "{\"test\":\"exchange\",\"how\":%d,\"loaded\":%d,\"floats\":%d,\"blocks\":%d,\"us\":%.3f,\"stream_gb_s\":%.0f,"
        "\"stuck\":%u,\"sum_right\":%s}\n",
        HOW, LOADED, n, blocks, best_ms * 1e3 / PHASES, copies * PIECE / best_ms / 1e6, bad, right ? "true" : "false");
    fflush(stdout);
    CHECK(cudaFree(buffer));
    CHECK(cudaFree(flags));
    CHECK(cudaFree(out));
}
