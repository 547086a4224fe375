// How many clusters of each size fit on the device at once, and how long an exchange within a cluster takes.
#pragma once
#include "common.cuh"

constexpr int HOPS = 4000, MOST_CLUSTERS = 16;

__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

__device__ __forceinline__ u32 in_block(const void* pointer, u32 rank) {
    u32 address;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(pointer)), "r"(rank));
    return address;
}

// Each block sends 256 bytes to each block of the cluster, by stores that signal the receiver's own barrier.
__global__ void __launch_bounds__(256) cluster_hop(int hops, float* out) {
    __shared__ u64 barrier;
    __shared__ float4 box[8][16];
    u32 rank, size;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
    if (threadIdx.x == 0) {
        barrier_init(&barrier);
        barrier_init_done();
    }
    cluster_sync();
    const u32 to = threadIdx.x / 16, part = threadIdx.x % 16;
    float v = 1;
    for (int i = 0; i < hops; i++) {
        if (threadIdx.x == 0) barrier_expect(&barrier, size * 256);
        if (to < size)
            asm volatile(
                "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1,%1,%1,%1}, [%2];" ::"r"(
                    in_block(&box[rank % 8][part], to)),
                "f"(v), "r"(in_block(&barrier, to))
                : "memory");
        u32 done = 0;
        for (u32 n = 0; !done && n < TRIES; n++)
            asm volatile(
                "{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; selp.u32 "
                "%0,1,0,p; }"
                : "=r"(done)
                : "r"(shared_address(&barrier)), "r"(i & 1)
                : "memory");
        v = box[threadIdx.x % 8][0].x;
        __syncthreads();
    }
    cluster_sync();
    // Never true, but the compiler cannot know.
    if (v == 12345.f) *out = 1;
}

void clusters() {
    CHECK(cudaFuncSetAttribute(cluster_hop, cudaFuncAttributeMaxDynamicSharedMemorySize, 200 * 1024));
    CHECK(cudaFuncSetAttribute(cluster_hop, cudaFuncAttributeNonPortableClusterSizeAllowed, 1));
    for (int size : {2, 4, 8, 16})
        for (int kb : {96, 200}) {
            cudaLaunchConfig_t config{};
            cudaLaunchAttribute attribute[1];
            attribute[0].id = cudaLaunchAttributeClusterDimension;
            attribute[0].val.clusterDim.x = size;
            attribute[0].val.clusterDim.y = attribute[0].val.clusterDim.z = 1;
            config.attrs = attribute;
            config.numAttrs = 1;
            config.gridDim = dim3(size);
            config.blockDim = dim3(256);
            config.dynamicSmemBytes = kb * 1024;
            config.stream = stream;
            int resident = 0;
            float us = -1;
            // An impossible size is an error here and a valid result: `resident` stays 0.
            if (cudaOccupancyMaxActiveClusters(&resident, cluster_hop, &config) != cudaSuccess) cudaGetLastError();
            if (resident && size <= 8) {
                config.gridDim = dim3(std::min(resident, MOST_CLUSTERS) * size);
                for (int round = 0; round < 3; round++)
                    us = time_ms([&] { CHECK(cudaLaunchKernelEx(&config, cluster_hop, HOPS, vectors)); }) * 1e3 / HOPS;
            }
            printf("{\"test\":\"cluster\",\"size\":%d,\"kb\":%d,\"resident\":%d,\"hop_us\":%.3f}\n", size, kb, resident,
                   us);
            fflush(stdout);
        }
}
