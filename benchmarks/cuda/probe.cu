// Compares a chain of dependent launches with one persistent kernel on a Hopper GPU, in about 20 seconds.
//   nvcc -O3 -std=c++17 -gencode=arch=compute_90a,code=sm_90a probe.cu -o probe && ./probe > probe.jsonl
// Prints one JSON object per line, flushed at once, so that an aborted run keeps its results. Every spin is bounded.
#include "chain.cuh"
#include "common.cuh"
#include "exchange.cuh"

template <class T>
void allocate(T** pointer, size_t count) {
    CHECK(cudaMalloc(pointer, count * sizeof(T)));
    CHECK(cudaMemset(*pointer, 0, count * sizeof(T)));
}

void chains() {
    const std::vector<u32> none{0}, s48{49152}, s64{65536}, layer{49152, 16384, 65536, 65536};
    chain<AT_END, NONE>("empty", false, none, -1);
    chain<AT_END, NONE>("empty", true, none, -1);
    chain<FIRST, NONE>("empty", true, none, -1);
    chain<NEVER, BULK>("48K", false, s48, -1);
    chain<AT_END, BULK>("48K", true, s48, -1);
    chain<BEHIND_LOADS, BULK>("48K", true, s48, -1);
    chain<FIRST, BULK>("48K", true, s48, -1);
    chain<FIRST, BULK>("48K", true, s48, 100);
    chain<BEHIND_LOADS, REGISTERS>("48K in registers", true, s48, -1);
    chain<FIRST, REGISTERS>("48K in registers", true, s48, -1);
    chain<FIRST, REGISTERS>("48K in registers", true, s48, 0);
    chain<FIRST, BULK>("64K", true, s64, 100);
    chain<BEHIND_LOADS, BULK>("a layer", true, layer, -1);
    chain<FIRST, BULK>("a layer", true, layer, -1);
    chain<FIRST, BULK>("a layer", true, layer, 100);
}

template <bool LOADED>
void all_exchanges() {
    exchanges<LOADED>(1024, BLOCKS);
    exchanges<LOADED>(4096, BLOCKS);
}

int main() {
    cudaDeviceProp device;
    CHECK(cudaGetDeviceProperties(&device, 0));
    printf("{\"test\":\"device\",\"name\":\"%s\",\"sms\":%d,\"l2_mb\":%d}\n", device.name, device.multiProcessorCount,
           device.l2CacheSize >> 20);
    fflush(stdout);
    CHECK(cudaStreamCreate(&stream));
    allocate(&weights, WEIGHT_BYTES);
    allocate(&vectors, 2 * 8 * BLOCKS);
    allocate(&places, KERNELS * PLACES);
    allocate(&spans, KERNELS * TIMES);
    chains();
    all_exchanges<false>();
    all_exchanges<true>();
}
