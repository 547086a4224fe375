// Each file needs the ones above it.
// clang-format off
#include "device.h"
#include "numbers.cuh"
#include "matrices.cu"
#include "attention.cu"
#include "random.cuh"
#include "head.cu"
// clang-format on

extern "C" int run(const char* name, const int* grid, int threads, void** args) {
#define KERNEL(kernel) \
    if (!std::strcmp(name, #kernel)) return launch(kernel, grid, threads, args), 0
    KERNEL(norm_qkv);
    KERNEL(decode_attention);
    KERNEL(attention_out);
    KERNEL(norm_fc_gelu);
    KERNEL(proj_residual);
    KERNEL(head_draw);
    return 1;
}
