// Time of one exchange between all blocks of a persistent kernel: idle, and while weights stream through it.
#pragma once
#include "common.cuh"

constexpr int WORKERS = 256, STAGES = 8, PHASES = 4000, ROUNDS = 4;
constexpr u64 GIVE_UP_NS = 2000000000ull;

__device__ u32 stuck;

__device__ __forceinline__ void workers_sync() { asm volatile("bar.sync 1, 256;" ::: "memory"); }

// Whether a spin has taken too long.
__device__ __forceinline__ bool give_up(u64 begin) {
    if (now() - begin < GIVE_UP_NS) return false;
    stuck = 1;
    return true;
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

// Exchange n values, the same number from each block. LOADED: a ninth warp streams weights at the same time.
template <bool LOADED>
__global__ void __launch_bounds__(WORKERS + 32)
    exchange(u64* buffer, int n, int phases, const char* w, size_t bytes, float* out) {
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
        sum += exchange_words(buffer + (phase & 1) * n, n, per, phase, value, begin);
    }
    if (t == 0) stop = 1;
    sum = warp_sum(sum);
    if (t == 0) out[256 + blockIdx.x] = sum;
}

template <bool LOADED>
void exchanges(int n, int blocks) {
    u64* buffer;
    float* out;
    u32 bad = 0;
    const int buffer_bytes = 2 * n * sizeof(u64), shared_bytes = LOADED ? STAGES * PIECE : 0;
    CHECK(cudaMalloc(&buffer, buffer_bytes));
    CHECK(cudaMalloc(&out, 4096));
    CHECK(cudaMemcpyToSymbol(stuck, &bad, sizeof(bad)));
    CHECK(cudaFuncSetAttribute(exchange<LOADED>, cudaFuncAttributeMaxDynamicSharedMemorySize, STAGES * PIECE));
    float best_ms = 1e9;
    double copies = 0;
    bool right = true;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK(cudaMemset(buffer, 0, buffer_bytes));
        CHECK(cudaMemset(out, 0, 4096));
        const char* w = weights;
        size_t bytes = WEIGHT_BYTES;
        int phases = PHASES, count = n;
        void* args[] = {&buffer, &count, &phases, &w, &bytes, &out};
        const float ms = time_ms([&] {
            CHECK(cudaLaunchCooperativeKernel((void*)exchange<LOADED>, dim3(blocks), dim3(WORKERS + 32), args,
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
        "{\"test\":\"exchange\",\"loaded\":%d,\"floats\":%d,\"blocks\":%d,\"us\":%.3f,\"stream_gb_s\":%.0f,"
        "\"stuck\":%u,\"sum_right\":%s}\n",
        LOADED, n, blocks, best_ms * 1e3 / PHASES, copies * PIECE / best_ms / 1e6, bad, right ? "true" : "false");
    fflush(stdout);
    CHECK(cudaFree(buffer));
    CHECK(cudaFree(out));
}
