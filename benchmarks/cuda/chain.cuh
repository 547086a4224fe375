// A chain of dependent launches; each requests its weights before it waits for the previous one. Measures whether the
// weights arrive before the wait is over.
#pragma once
#include "common.cuh"

// When a kernel lets the next one start: never, at its beginning, after its loads, at its end.
enum Trigger { NEVER, FIRST, BEHIND_LOADS, AT_END };
// How it loads its weights: not at all, by copies to shared memory, by loads to registers.
enum Load { NONE, BULK, REGISTERS };

constexpr int THREADS = 256, KERNELS = 240, MOST_LOADS = 16, LOAD_BYTES = THREADS * 16, TIMES = 4;
constexpr int BLOCKS = 128, PLACES = 256, SETTLED = 20, WARM_UPS = 2, REPLAYS = 12;

struct Args {
    const char* w;
    u32 bytes;
    const float* x;
    float* y;
    bool pdl;
    unsigned char* places;
    u64* spans;
};

__device__ __forceinline__ float bits(uint4 q) { return __uint_as_float((q.x ^ q.y ^ q.z ^ q.w) & 0x3fffffff); }

template <int TRIGGER, int LOAD>
__global__ void __launch_bounds__(THREADS) link(Args a) {
    __shared__ u64 barrier;
    float sum = 0;
    uint4 loaded[MOST_LOADS];
    const u64 began = now();
    auto trigger = [&](int at) {
        if (a.pdl && TRIGGER == at) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    };
    trigger(FIRST);
    const char* mine = a.w + (size_t)blockIdx.x * a.bytes;
    if (LOAD == BULK && threadIdx.x == 0) {
        barrier_init(&barrier);
        barrier_init_done();
        barrier_expect(&barrier, a.bytes);
        for (u32 at = 0; at < a.bytes; at += PIECE)
            bulk_copy(dynamic_shared + at, mine + at, min(PIECE, a.bytes - at), &barrier);
    }
    if (LOAD == REGISTERS) {
#pragma unroll
        for (int i = 0; i < MOST_LOADS; i++)
            if (i * LOAD_BYTES < a.bytes) loaded[i] = *(const uint4*)(mine + i * LOAD_BYTES + threadIdx.x * 16);
    }
    trigger(BEHIND_LOADS);
    __syncthreads();
    if (a.pdl) asm volatile("griddepcontrol.wait;" ::: "memory");
    const u64 released = now();
    const float4 v = load_fresh(a.x + 4 * threadIdx.x);
    if (LOAD == BULK) {
        barrier_wait(&barrier, 0);
        for (u32 i = threadIdx.x * 16; i < a.bytes; i += LOAD_BYTES) sum += bits(*(uint4*)(dynamic_shared + i));
    }
    if (LOAD == REGISTERS) {
#pragma unroll
        for (int i = 0; i < MOST_LOADS; i++)
            if (i * LOAD_BYTES < a.bytes) sum += bits(loaded[i]);
    }
    const u64 arrived = now();
    sum = warp_sum(sum + v.x + v.y + v.z + v.w);
    __syncthreads();
    if (threadIdx.x < 8) store(a.y + 8 * blockIdx.x + threadIdx.x, sum * 1e-30f);
    if (threadIdx.x == 0) {
        a.places[blockIdx.x] = multiprocessor();
        if (blockIdx.x == 0) {
            a.spans[0] = began;
            a.spans[1] = released;
            a.spans[2] = arrived;
            a.spans[3] = now();
        }
    }
    trigger(AT_END);
}

template <int TRIGGER, int LOAD>
void launch_link(u32 shared_bytes, Args args) {
    cudaLaunchConfig_t config{};
    config.gridDim = dim3(BLOCKS);
    config.blockDim = dim3(THREADS);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    cudaLaunchAttribute attribute[1];
    attribute[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute[0].val.programmaticStreamSerializationAllowed = 1;
    config.attrs = attribute;
    config.numAttrs = args.pdl;
    CHECK(cudaLaunchKernelEx(&config, link<TRIGGER, LOAD>, args));
}

// Median microseconds per kernel of the `count` kernels that `work` launches, replayed as a CUDA graph.
template <class Work>
float graph_us(Work work, int count) {
    cudaGraph_t graph;
    cudaGraphExec_t made;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
    work();
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&made, graph, 0));
    std::vector<float> times;
    for (int i = 0; i < WARM_UPS + REPLAYS; i++) {
        const float ms = time_ms([&] { CHECK(cudaGraphLaunch(made, stream)); });
        if (i >= WARM_UPS) times.push_back(ms * 1e3f / count);
    }
    CHECK(cudaGetLastError());
    CHECK(cudaGraphExecDestroy(made));
    CHECK(cudaGraphDestroy(graph));
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
}

// sizes: bytes per block, for the kernels in turn. carve: preferred percent of shared memory, -1: the driver decides.
template <int TRIGGER, int LOAD>
void chain(const char* name, bool pdl, const std::vector<u32>& sizes, int carve) {
    CHECK(cudaFuncSetAttribute(link<TRIGGER, LOAD>, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
    CHECK(cudaFuncSetAttribute(link<TRIGGER, LOAD>, cudaFuncAttributePreferredSharedMemoryCarveout, carve));
    double total = 0;
    const float us = graph_us(
        [&] {
            size_t at = 0;
            for (int k = 0; k < KERNELS; k++) {
                const u32 bytes = LOAD == NONE ? 0 : sizes[k % sizes.size()];
                if (at + (size_t)bytes * BLOCKS > WEIGHT_BYTES) at = 0;
                launch_link<TRIGGER, LOAD>(
                    LOAD == BULK ? bytes : 0,
                    {weights + at, bytes, vectors + (k & 1) * 8 * BLOCKS, vectors + (~k & 1) * 8 * BLOCKS, pdl,
                     places + k * PLACES, spans + k * TIMES});
                at += (size_t)bytes * BLOCKS;
                total += (double)bytes * BLOCKS;
            }
        },
        KERNELS);
    std::vector<unsigned char> where(KERNELS * PLACES);
    std::vector<u64> when(KERNELS * TIMES);
    CHECK(cudaMemcpy(where.data(), places, where.size(), cudaMemcpyDeviceToHost));
    CHECK(cudaMemcpy(when.data(), spans, when.size() * sizeof(u64), cudaMemcpyDeviceToHost));
    int most = 0;
    for (int k = 0; k < KERNELS; k++) {
        int count[PLACES] = {};
        for (int i = 0; i < BLOCKS; i++) most = std::max(most, ++count[where[k * PLACES + i]]);
    }
    // How long before its release a block began (its loads overlap with that time), and how long it then still waited.
    double lead = 0, late = 0;
    for (int k = SETTLED; k < KERNELS; k++) {
        lead += double(when[k * TIMES + 1] - when[k * TIMES]);
        late += double(when[k * TIMES + 2] - when[k * TIMES + 1]);
    }
    const int counted = KERNELS - SETTLED;
    printf(
        "{\"test\":\"chain\",\"name\":\"%s\",\"trigger\":%d,\"how\":%d,\"pdl\":%d,\"carve\":%d,\"kb\":%u,\"us\":%.3f,"
        "\"gb_s\":%.0f,\"lead_ns\":%.0f,\"data_after_release_ns\":%.0f,\"most_blocks_per_sm\":%d}\n",
        name, TRIGGER, LOAD, pdl, carve, sizes[0] / 1024, us, total / KERNELS / us / 1e3, lead / counted,
        late / counted, most);
    fflush(stdout);
}
