// What decides between a chain of dependent launches and one persistent kernel, on one Hopper GPU, in about 20 seconds.
//   nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a probe.cu -o probe && ./probe > probe.jsonl
// One JSON object per line, flushed at once, so that a run that is ended keeps what it has. Every spin is bounded.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>
#define CK(x)                                                                             \
    do {                                                                                  \
        cudaError_t e_ = (x);                                                             \
        if (e_ != cudaSuccess) {                                                          \
            printf("{\"error\":\"%s\",\"line\":%d}\n", cudaGetErrorString(e_), __LINE__); \
            fflush(stdout);                                                               \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)
typedef unsigned u32;
typedef unsigned long long u64;
__device__ __forceinline__ u32 sa(const void* p) { return (u32)__cvta_generic_to_shared(p); }
__device__ __forceinline__ float4 fresh(const float* p) {
    float4 v;
    asm volatile("ld.relaxed.gpu.global.v4.f32 {%0,%1,%2,%3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}
__device__ __forceinline__ void put(float* p, float v) {
    asm volatile("st.relaxed.gpu.global.f32 [%0], %1;" ::"l"(p), "f"(v) : "memory");
}
__device__ __forceinline__ u64 now() {
    u64 t;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(t));
    return t;
}
#define TRIGGER asm volatile("griddepcontrol.launch_dependents;" ::: "memory")
#define WAIT asm volatile("griddepcontrol.wait;" ::: "memory")
__device__ u32 smid() {
    u32 s;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(s));
    return s;
}
extern __shared__ __align__(128) char dyn[];

// ---------------------------------------------------------------- A: a chain of dependent launches that prefetch
// TRIG: 0 never, 1 first thing, 2 after the loads are asked for, 3 at the end.   HOW: 0 no loads, 1 bulk copy, 2
// registers.
template <int TRIG, int HOW>
__global__ void __launch_bounds__(256)
    link(const char* w, u32 bytes, const float* x, float* y, bool pdl, unsigned char* where, u64* spans) {
    __shared__ u64 bar;
    float acc = 0;
    uint4 r[16];
    u64 began = now();
    if (pdl && TRIG == 1) TRIGGER;
    const char* mine = w + (size_t)blockIdx.x * bytes;
    if (HOW == 1 && threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(sa(&bar)));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sa(&bar)), "r"(bytes) : "memory");
        for (u32 d = 0; d < bytes; d += 16384)
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                    sa(dyn) + d),
                "l"(mine + d), "r"(min(16384u, bytes - d)), "r"(sa(&bar))
                : "memory");
    }
    if (HOW == 2) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (i * 4096 < bytes) r[i] = *(const uint4*)(mine + i * 4096 + threadIdx.x * 16);
    }
    if (pdl && TRIG == 2) TRIGGER;
    __syncthreads();
    if (pdl) WAIT;
    u64 released = now();
    float4 v = fresh(x + 4 * threadIdx.x);
    if (HOW == 1) {
        u32 ok = 0;
        for (u32 n = 0; !ok && n < (1u << 22); n++)
            asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], 0; selp.u32 %0,1,0,p; }"
                         : "=r"(ok)
                         : "r"(sa(&bar))
                         : "memory");
        for (u32 i = threadIdx.x * 16; i < bytes; i += 4096) {
            uint4 q = *(uint4*)(dyn + i);
            acc += __uint_as_float((q.x ^ q.y ^ q.z ^ q.w) & 0x3fffffff);
        }
    }
    if (HOW == 2) {
#pragma unroll
        for (int i = 0; i < 16; i++)
            if (i * 4096 < bytes) acc += __uint_as_float((r[i].x ^ r[i].y ^ r[i].z ^ r[i].w) & 0x3fffffff);
    }
    u64 arrived = now();
    acc += v.x + v.y + v.z + v.w;
    for (int s = 16; s; s /= 2) acc += __shfl_xor_sync(~0u, acc, s);
    __syncthreads();
    if (threadIdx.x < 8) put(y + 8 * blockIdx.x + threadIdx.x, acc * 1e-30f);
    if (threadIdx.x == 0) {
        if (where) where[blockIdx.x] = smid();
        if (spans && blockIdx.x == 0) spans[0] = began, spans[1] = released, spans[2] = arrived, spans[3] = now();
    }
    if (pdl && TRIG == 3) TRIGGER;
}
struct Args {
    const char* w;
    u32 bytes;
    const float* x;
    float* y;
    bool pdl;
    unsigned char* where;
    u64* spans;
};
template <int T, int H>
void launch(cudaStream_t s, int grid, u32 smem, Args a) {
    cudaLaunchConfig_t c{};
    c.gridDim = dim3(grid);
    c.blockDim = dim3(256);
    c.dynamicSmemBytes = smem;
    c.stream = s;
    cudaLaunchAttribute at[1];
    at[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    at[0].val.programmaticStreamSerializationAllowed = 1;
    c.attrs = at;
    c.numAttrs = a.pdl;
    CK(cudaLaunchKernelEx(&c, link<T, H>, a.w, a.bytes, a.x, a.y, a.pdl, a.where, a.spans));
}
cudaStream_t S;
char* W;
size_t WB = size_t(3) << 29;
float* X;
unsigned char* WHERE;
u64* SPANS;
template <class F>
float graph_us(F body, int per, int reps = 12) {
    cudaGraph_t g;
    cudaGraphExec_t e;
    CK(cudaStreamBeginCapture(S, cudaStreamCaptureModeGlobal));
    body();
    CK(cudaStreamEndCapture(S, &g));
    CK(cudaGraphInstantiate(&e, g, 0));
    cudaEvent_t a, b;
    CK(cudaEventCreate(&a));
    CK(cudaEventCreate(&b));
    std::vector<float> t;
    for (int i = 0; i < reps + 2; i++) {
        CK(cudaEventRecord(a, S));
        CK(cudaGraphLaunch(e, S));
        CK(cudaEventRecord(b, S));
        CK(cudaEventSynchronize(b));
        float ms;
        CK(cudaEventElapsedTime(&ms, a, b));
        if (i > 1) t.push_back(ms * 1e3f / per);
    }
    CK(cudaGetLastError());
    CK(cudaGraphExecDestroy(e));
    CK(cudaGraphDestroy(g));
    std::sort(t.begin(), t.end());
    return t[t.size() / 2];
}
// sizes: bytes per block of the kernels in turn. carve: shared memory preference, -1 as the driver likes.
template <int T, int H>
void chain(const char* name, bool pdl, std::vector<u32> sizes, int carve, int grid = 128) {
    CK(cudaFuncSetAttribute(link<T, H>, cudaFuncAttributeMaxDynamicSharedMemorySize, 65536));
    CK(cudaFuncSetAttribute(link<T, H>, cudaFuncAttributePreferredSharedMemoryCarveout, carve));
    const int K = 240;
    double total = 0;
    auto body = [&] {
        size_t at = 0;
        total = 0;
        for (int k = 0; k < K; k++) {
            u32 b = sizes[k % sizes.size()];
            if (at + (size_t)b * grid > WB) at = 0;
            launch<T, H>(
                S, grid, H == 1 ? b : 0,
                {W + at, H ? b : 0, X + (k & 1) * 1024, X + (~k & 1) * 1024, pdl, WHERE + k * 256, SPANS + k * 4});
            at += (size_t)b * grid;
            if (H) total += (double)b * grid;
        }
    };
    float us = graph_us(body, K);
    std::vector<unsigned char> wh(K * 256);
    std::vector<u64> sp(K * 4);
    CK(cudaMemcpy(wh.data(), WHERE, K * 256, cudaMemcpyDeviceToHost));
    CK(cudaMemcpy(sp.data(), SPANS, K * 32, cudaMemcpyDeviceToHost));
    int worst = 0;
    for (int k = 0; k < K; k++) {
        int n[256] = {};
        for (int i = 0; i < grid; i++) worst = std::max(worst, ++n[wh[k * 256 + i]]);
    }
    // How long before its release a block began: the room that a prefetch has.
    double lead = 0, late = 0;
    for (int k = 20; k < K; k++)
        lead += double(sp[k * 4 + 1] - sp[k * 4]), late += double(sp[k * 4 + 2] - sp[k * 4 + 1]);
    printf(
        "{\"test\":\"chain\",\"name\":\"%s\",\"trigger\":%d,\"how\":%d,\"pdl\":%d,\"carve\":%d,\"kb\":%u,\"us\":%.3f,"
        "\"gb_s\":%.0f,\"lead_ns\":%.0f,\"data_after_release_ns\":%.0f,\"most_blocks_per_sm\":%d}\n",
        name, T, H, pdl, carve, sizes[0] / 1024, us, total / K / us / 1e3, lead / (K - 20), late / (K - 20), worst);
    fflush(stdout);
}

// ------------------------------------------------- B: what one exchange between all blocks costs in a persistent
// kernel HOW: 0 counter barrier, 1 a flag per block, 2 the data carries its own flag (value and phase in one 8-byte
// word).  N floats are exchanged, N / gridDim by each block. LOAD: a producer thread streams bulk copies all the while.
__device__ u32 stuck;
template <int HOW, bool LOAD>
__global__ void __launch_bounds__(288)
    exchange(float* buf, u32* flags, int n, int phases, const char* w, size_t wb, float* out) {
    __shared__ u64 bars[8];
    __shared__ volatile int stop;
    const int G = gridDim.x, per = n / G, t = threadIdx.x;
    if (t == 0) {
        stop = 0;
        for (int i = 0; i < 8; i++) asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(sa(&bars[i])));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    if (t >= 256) {
        if (LOAD && t == 256) {
            size_t k = blockIdx.x, step = G;
            u32 i = 0;
            for (; !stop; i++, k += step) {
                int s = i % 8;
                u32 ph = (i / 8 - 1) & 1, ok = i < 8;
                while (!ok)
                    asm volatile(
                        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0,1,0,p; }"
                        : "=r"(ok)
                        : "r"(sa(&bars[s])), "r"(ph)
                        : "memory");
                asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sa(&bars[s])), "r"(16384)
                             : "memory");
                asm volatile(
                    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                        sa(dyn) + s * 16384),
                    "l"(w + (k * 16384) % wb), "r"(16384), "r"(sa(&bars[s]))
                    : "memory");
            }
            for (u32 j = i > 8 ? i - 8 : 0; j < i; j++) {
                u32 ok = 0;
                while (!ok)
                    asm volatile(
                        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0,1,0,p; }"
                        : "=r"(ok)
                        : "r"(sa(&bars[j % 8])), "r"((j / 8) & 1)
                        : "memory");
            }
            out[blockIdx.x] = i;
        }
        return;
    }
    u64 begin = now();
    float acc = 0;
    for (int p = 1; p <= phases; p++) {
        if (HOW == 2) {  // 8-byte words of value and phase number: each word is written and read whole, and nothing is
                         // ever cleared
            u64* cur = (u64*)buf + (p & 1) * n;
            if (t < per)
                asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(cur + blockIdx.x * per + t),
                             "l"((u64)p << 32 | __float_as_uint(1.0f + acc * 0.f))
                             : "memory");
            for (int i = 2 * t; i < n; i += 512) {
                u64 x, y;
                do {
                    asm volatile("ld.relaxed.gpu.global.v2.b64 {%0,%1}, [%2];"
                                 : "=l"(x), "=l"(y)
                                 : "l"(cur + i)
                                 : "memory");
                    if (now() - begin > 2000000000ull) {
                        stuck = 1;
                        break;
                    }
                } while ((u32)(x >> 32) != (u32)p || (u32)(y >> 32) != (u32)p);
                acc += __uint_as_float((u32)x) + __uint_as_float((u32)y);
            }
            asm volatile("bar.sync 1, 256;" ::: "memory");
            continue;
        }
        float* cur = buf + (p & 1) * n;
        if (t < per) put(cur + blockIdx.x * per + t, 1.0f + acc * 0.f);
        asm volatile("bar.sync 1, 256;" ::: "memory");
        if (HOW == 0 && t == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(flags) : "memory");
            u32 v;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flags) : "memory");
                if (now() - begin > 2000000000ull) {
                    stuck = 1;
                    break;
                }
            } while (v < (u32)p * G);
        }
        if (HOW == 1) {
            if (t == 0)
                asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(flags + 8 * blockIdx.x), "r"(p) : "memory");
            if (t < G) {
                u32 v;
                do {
                    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(flags + 8 * t) : "memory");
                    if (now() - begin > 2000000000ull) {
                        stuck = 1;
                        break;
                    }
                } while (v < (u32)p);
            }
        }
        asm volatile("bar.sync 1, 256;" ::: "memory");
        for (int i = 4 * t; i < n; i += 1024) {
            float4 v = fresh(cur + i);
            acc += v.x + v.y + v.z + v.w;
        }
    }
    if (t == 0) stop = 1;
    for (int s = 16; s; s /= 2) acc += __shfl_xor_sync(~0u, acc, s);
    if (t == 0) out[256 + blockIdx.x] = acc;
}
template <int HOW, bool LOAD>
void exchanges(int n, int grid) {
    const int P = 4000;
    float *buf, *out;
    u32* flags;
    CK(cudaMalloc(&buf, 4 * n * 4));
    CK(cudaMalloc(&flags, 65536));
    CK(cudaMalloc(&out, 4096));
    CK(cudaFuncSetAttribute(exchange<HOW, LOAD>, cudaFuncAttributeMaxDynamicSharedMemorySize, 131072));
    cudaEvent_t a, b;
    CK(cudaEventCreate(&a));
    CK(cudaEventCreate(&b));
    float best = 1e9;
    std::vector<float> h(512);
    for (int r = 0; r < 4; r++) {
        CK(cudaMemset(buf, 0, 4 * n * 4));
        CK(cudaMemset(flags, 0, 65536));
        CK(cudaMemset(out, 0, 4096));
        const char* w = W;
        size_t wb = WB;
        int phases = P, nn = n;
        void* args[] = {&buf, &flags, &nn, &phases, &w, &wb, &out};
        CK(cudaEventRecord(a, S));
        CK(cudaLaunchCooperativeKernel((void*)exchange<HOW, LOAD>, dim3(grid), dim3(288), args, LOAD ? 131072 : 0, S));
        CK(cudaEventRecord(b, S));
        CK(cudaEventSynchronize(b));
        float ms;
        CK(cudaEventElapsedTime(&ms, a, b));
        best = std::min(best, ms);
        CK(cudaMemcpy(h.data(), out, 2048, cudaMemcpyDeviceToHost));
    }
    u32 bad;
    CK(cudaMemcpyFromSymbol(&bad, stuck, 4));
    bool right = true;
    for (int i = 0; i < grid; i++)
        right = right && h[256 + i] == (float)P * std::min(n, 1024) / 256 * 32 * std::max(1, n / 1024);
    double copies = 0;
    for (int i = 0; i < grid; i++) copies += h[i];
    printf(
        "{\"test\":\"exchange\",\"how\":%d,\"loaded\":%d,\"floats\":%d,\"blocks\":%d,\"us\":%.3f,\"stream_gb_s\":%.0f,"
        "\"stuck\":%u,\"sum_right\":%s}\n",
        HOW, LOAD, n, grid, best * 1e3 / P, copies * 16384 / best / 1e6, bad, right ? "true" : "false");
    fflush(stdout);
    CK(cudaFree(buf));
    CK(cudaFree(flags));
    CK(cudaFree(out));
}

// ------------------------------------------------------------------------------------------------- C: clusters
__global__ void __launch_bounds__(256)
    cluster_hop(int iters, unsigned char* where) {  // 256 bytes to each neighbour, by st.async with its own arrival
    __shared__ u64 bar;
    __shared__ float4 box[8][16];
    u32 rank, size;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    if (threadIdx.x == 0) {
        asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(sa(&bar)));
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        if (where) where[blockIdx.x] = smid();
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    float v = 1;
    for (int i = 0; i < iters; i++) {
        if (threadIdx.x == 0)
            asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(sa(&bar)), "r"(size * 256)
                         : "memory");
        u32 to = threadIdx.x / 16, part = threadIdx.x % 16;
        if (to < size) {
            u32 rb, rd;
            asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(rb) : "r"(sa(&bar)), "r"(to));
            asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(rd) : "r"(sa(&box[rank % 8][part])), "r"(to));
            asm volatile(
                "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%1,%1,%1}, [%2];" ::"r"(rd),
                "f"(v), "r"(rb)
                : "memory");
        }
        u32 ok = 0;
        for (u32 n = 0; !ok && n < (1u << 22); n++)
            asm volatile(
                "{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 "
                "%0,1,0,p; }"
                : "=r"(ok)
                : "r"(sa(&bar)), "r"(i & 1)
                : "memory");
        v = box[threadIdx.x % 8][0].x;
        __syncthreads();
    }
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
    if (v == 12345.f) where[0] = 1;
}
void clusters() {
    CK(cudaFuncSetAttribute(cluster_hop, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024));
    CK(cudaFuncSetAttribute(cluster_hop, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    for (int cs : {2, 4, 8, 16})
        for (int kb : {96, 200}) {
            cudaLaunchConfig_t c{};
            cudaLaunchAttribute at[1];
            at[0].id = cudaLaunchAttributeClusterDimension;
            at[0].val.clusterDim.x = cs;
            at[0].val.clusterDim.y = at[0].val.clusterDim.z = 1;
            c.attrs = at;
            c.numAttrs = 1;
            c.gridDim = dim3(cs);
            c.blockDim = dim3(256);
            c.dynamicSmemBytes = kb * 1024;
            c.stream = S;
            int active = 0;
            cudaError_t e = cudaOccupancyMaxActiveClusters(&active, cluster_hop, &c);
            float us = -1;
            if (e == cudaSuccess && active && cs <= 8) {
                c.gridDim = dim3(std::min(active, 16) * cs);
                cudaEvent_t a, b;
                CK(cudaEventCreate(&a));
                CK(cudaEventCreate(&b));
                for (int r = 0; r < 3; r++) {
                    CK(cudaEventRecord(a, S));
                    CK(cudaLaunchKernelEx(&c, cluster_hop, 4000, WHERE));
                    CK(cudaEventRecord(b, S));
                    CK(cudaEventSynchronize(b));
                    float ms;
                    CK(cudaEventElapsedTime(&ms, a, b));
                    us = ms * 1e3 / 4000;
                }
            } else
                cudaGetLastError();
            printf("{\"test\":\"cluster\",\"size\":%d,\"kb\":%d,\"resident\":%d,\"hop_us\":%.3f}\n", cs, kb, active,
                   us);
            fflush(stdout);
        }
}
int main() {
    cudaDeviceProp p;
    CK(cudaGetDeviceProperties(&p, 0));
    int sms = p.multiProcessorCount;
    printf("{\"test\":\"device\",\"name\":\"%s\",\"sms\":%d,\"l2_mb\":%d}\n", p.name, sms, p.l2CacheSize >> 20);
    fflush(stdout);
    CK(cudaStreamCreate(&S));
    CK(cudaMalloc(&W, WB));
    CK(cudaMemset(W, 1, WB));
    CK(cudaMalloc(&X, 8192 + 65536));
    CK(cudaMemset(X, 0, 8192 + 65536));
    CK(cudaMalloc(&WHERE, 1 << 17));
    CK(cudaMalloc(&SPANS, 1 << 16));
    std::vector<u32> none{0}, s48{49152}, s64{65536}, layer{49152, 16384, 65536, 65536};
    chain<3, 0>("empty", false, none, -1);
    chain<3, 0>("empty", true, none, -1);
    chain<1, 0>("empty", true, none, -1);
    chain<0, 1>("48K", false, s48, -1);
    chain<3, 1>("48K", true, s48, -1);
    chain<2, 1>("48K", true, s48, -1);
    chain<1, 1>("48K", true, s48, -1);
    chain<1, 1>("48K", true, s48, 100);
    chain<2, 2>("48K in registers", true, s48, -1);
    chain<1, 2>("48K in registers", true, s48, -1);
    chain<1, 2>("48K in registers", true, s48, 0);
    chain<1, 1>("64K", true, s64, 100);
    chain<2, 1>("a layer", true, layer, -1);
    chain<1, 1>("a layer", true, layer, -1);
    chain<1, 1>("a layer", true, layer, 100);
    exchanges<0, false>(1024, 128);
    exchanges<1, false>(1024, 128);
    exchanges<2, false>(1024, 128);
    exchanges<2, false>(4096, 128);
    exchanges<0, true>(1024, 128);
    exchanges<1, true>(1024, 128);
    exchanges<2, true>(1024, 128);
    exchanges<2, true>(4096, 128);
    clusters();
}
