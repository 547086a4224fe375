// Counter-based Gumbel noise, the same as in barkfast_kernels/random.

// The first word of Philox-4x32-10 with counter (index, draw, stage, 0).
__device__ __forceinline__ u32 philox_word(u32 index, u32 draw, u32 stage, u32 key_0, u32 key_1) {
    u32 c_0 = index, c_1 = draw, c_2 = stage, c_3 = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        u32 high_0 = __umulhi(0xD2511F53u, c_0), low_0 = 0xD2511F53u * c_0;
        u32 high_2 = __umulhi(0xCD9E8D57u, c_2), low_2 = 0xCD9E8D57u * c_2;
        c_0 = high_2 ^ c_1 ^ key_0, c_1 = low_2;
        c_2 = high_0 ^ c_3 ^ key_1, c_3 = low_0;
        key_0 += 0x9E3779B9u, key_1 += 0xBB67AE85u;
    }
    return c_0;
}

// Always finite. random/triton.py explains the computation.
__device__ __forceinline__ float gumbel_of_word(u32 word) {
    float v = fminf((static_cast<float>(word) + 0.5f) * 0x1p-32f, 1.0f - 0x1p-24f);
    float series = v * (1.0f + v * (0.5f + v * (1.0f / 3.0f)));
    float exponential = v < 0x1p-10f ? series : -logf(1.0f - v);
    return -logf(exponential);
}
