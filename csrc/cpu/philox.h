// Gumbel noise from a counter: the same numbers as the GPU engine's (kernels/barkfast_kernels/random).
//
// Included inside a level's namespace, by sample.h, after functions.h.

struct Words {
    I16 w[4];
};

// Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
INLINE Words philox(Words c, uint32_t key0, uint32_t key1) {
    const I16 m0 = iall(int32_t(0xd2511f53u)), m2 = iall(int32_t(0xcd9e8d57u));
    UNROLL for (int round = 0; round < 10; ++round) {
        const I16 high0 = multiply_high(c.w[0], m0), low0 = imul(c.w[0], m0);
        const I16 high2 = multiply_high(c.w[2], m2), low2 = imul(c.w[2], m2);
        c.w[0] = ixor(ixor(high2, c.w[1]), iall(int32_t(key0)));
        c.w[2] = ixor(ixor(high0, c.w[3]), iall(int32_t(key1)));
        c.w[1] = low2;
        c.w[3] = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return c;
}

// Standard Gumbel noise, always finite; a smaller word gives larger noise.
INLINE F16 gumbel_of_word(I16 word) {
    // The rare large noise comes from small v, where float32 has all bits of the word. 1 - v would lose them, so there
    // the series of -log(1 - v) is used.
    const F16 one = all(1.0f);
    const F16 v = min(mul(add(unsigned_to_float(word), all(0.5f)), all(0x1p-32f)), all(1 - 0x1p-24f));
    const F16 series = mul(v, fma(v, fma(v, all(1.0f / 3), all(0.5f)), one));
    const F16 exponential = select(less(v, all(0x1p-10f)), series, sub(zero(), log(sub(one, v))));
    return sub(zero(), log(exponential));
}

// Noise of the 16 indices from `first` on.
INLINE F16 gumbel_noise(const Draw& draw, int64_t first) {
    static const int32_t lanes[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const I16 index = iadd(iload(lanes), iall(int32_t(first)));
    const Words counter = {{index, iall(int32_t(draw.number)), iall(int32_t(draw.stage)), iall(0)}};
    return gumbel_of_word(philox(counter, uint32_t(draw.seed), uint32_t(draw.seed >> 32)).w[0]);
}
