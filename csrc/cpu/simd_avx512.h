// Sixteen lanes in one AVX-512 register: the functions of simd_scalar.h, which documents them.
//
// HAS_VNNI and HAS_BF16 say which dot products there are. Included inside a level's namespace and target region.

struct F16 {
    __m512 v;
};
struct I16 {
    __m512i v;
};
struct Mask {
    __mmask16 v;
};

// --- float lanes
INLINE F16 all(float x) { return {_mm512_set1_ps(x)}; }
INLINE F16 zero() { return {_mm512_setzero_ps()}; }
INLINE F16 load(const float* p) { return {_mm512_loadu_ps(p)}; }
INLINE void store(float* p, F16 a) { _mm512_storeu_ps(p, a.v); }
INLINE F16 add(F16 a, F16 b) { return {_mm512_add_ps(a.v, b.v)}; }
INLINE F16 sub(F16 a, F16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
INLINE F16 mul(F16 a, F16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
INLINE F16 div(F16 a, F16 b) { return {_mm512_div_ps(a.v, b.v)}; }
INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
INLINE F16 max(F16 a, F16 b) { return {_mm512_max_ps(a.v, b.v)}; }
INLINE F16 min(F16 a, F16 b) { return {_mm512_min_ps(a.v, b.v)}; }
INLINE F16 abs(F16 a) { return {_mm512_abs_ps(a.v)}; }

// --- comparisons
INLINE Mask less(F16 a, F16 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
INLINE F16 select(Mask m, F16 yes, F16 no) { return {_mm512_mask_blend_ps(m.v, no.v, yes.v)}; }

// --- across the lanes
INLINE __m256 upper_half(__m512 a) { return _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1)); }
INLINE float sum(F16 a) {
    const __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), upper_half(a.v));
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
INLINE float largest(F16 a) {
    const __m256 h = _mm256_max_ps(_mm512_castps512_ps256(a.v), upper_half(a.v));
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// --- integer lanes
INLINE I16 iall(int32_t x) { return {_mm512_set1_epi32(x)}; }
INLINE I16 iload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
INLINE void istore(int32_t* p, I16 a) { _mm512_storeu_si512(p, a.v); }
INLINE I16 iadd(I16 a, I16 b) { return {_mm512_add_epi32(a.v, b.v)}; }
INLINE I16 isub(I16 a, I16 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
INLINE I16 ixor(I16 a, I16 b) { return {_mm512_xor_si512(a.v, b.v)}; }
INLINE I16 iand(I16 a, I16 b) { return {_mm512_and_si512(a.v, b.v)}; }
INLINE I16 imul(I16 a, I16 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
INLINE I16 multiply_high(I16 a, I16 b) {
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(a.v, b.v), 32);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.v, 32), _mm512_srli_epi64(b.v, 32));
    return {_mm512_mask_blend_epi32(0xaaaa, even, odd)};
}
template <int N>
INLINE I16 shift_left(I16 a) {
    return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
INLINE I16 shift_right(I16 a) {
    return {_mm512_srli_epi32(a.v, N)};
}

// --- conversions between the two
INLINE F16 to_float(I16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
INLINE F16 unsigned_to_float(I16 a) { return {_mm512_cvtepu32_ps(a.v)}; }
INLINE I16 round_to_int(F16 a) { return {_mm512_cvtps_epi32(a.v)}; }
INLINE I16 bits(F16 a) { return {_mm512_castps_si512(a.v)}; }
INLINE F16 from_bits(I16 a) { return {_mm512_castsi512_ps(a.v)}; }

// --- narrow types in memory
INLINE F16 load_bf16(const uint16_t* p) {
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
// In integers instead of vcvtneps2bf16, which treats denormals as zero.
INLINE void store_bf16(uint16_t* p, F16 a) {
    const I16 odd = iand(shift_right<16>(bits(a)), iall(1));
    const I16 rounded = shift_right<16>(iadd(iadd(bits(a), iall(0x7fff)), odd));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded.v));
}
INLINE void store_int8(int8_t* p, I16 a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v)); }

// --- matrix steps
INLINE I16 load_step(const void* p) { return {_mm512_loadu_si512(p)}; }
INLINE I16 broadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return {_mm512_set1_epi32(x)};
}
INLINE F16 load_int8(const void* p) {
    return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p))))};
}
INLINE F16 even_bf16(I16 w) { return from_bits(shift_left<16>(w)); }
INLINE F16 odd_bf16(I16 w) { return from_bits(iand(w, iall(int32_t(0xffff0000u)))); }

constexpr bool kDotBf16 = HAS_BF16;
INLINE F16 dot_bf16(F16 sum, I16 w, I16 x) {
#if HAS_BF16
    // No intrinsic: Clang 16 crashes on it.
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(w.v), "v"(x.v));
#else
    (void)w, (void)x;
#endif
    return sum;
}
INLINE I16 dot_int8(I16 sum, I16 w, I16 x) {
#if HAS_VNNI
    // No intrinsic: GCC 12 copies the sum to memory and back around it, which halves the speed.
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(w.v), "v"(x.v));
    return sum;
#else
    // Even and odd bytes as 16-bit numbers: sums of two products fit 32 bits, where vpmaddubsw would saturate.
    const __m512i even = _mm512_madd_epi16(_mm512_and_si512(w.v, _mm512_set1_epi16(0x00ff)),
                                           _mm512_srai_epi16(_mm512_slli_epi16(x.v, 8), 8));
    const __m512i odd = _mm512_madd_epi16(_mm512_srli_epi16(w.v, 8), _mm512_srai_epi16(x.v, 8));
    return {_mm512_add_epi32(sum.v, _mm512_add_epi32(even, odd))};
#endif
}
INLINE I16 even_bytes(I16 a) { return {_mm512_srai_epi16(_mm512_slli_epi16(a.v, 8), 8)}; }
INLINE I16 odd_bytes(I16 a) { return {_mm512_srai_epi16(a.v, 8)}; }
INLINE I16 dot_words(I16 sum, I16 w, I16 x) {
    // No intrinsic: with it GCC 12 does all multiplications first and spills their results to memory.
    __asm__("vpaddd %1, %0, %0" : "+v"(sum.v) : "v"(_mm512_madd_epi16(w.v, x.v)));
    return sum;
}
constexpr bool kWords = !HAS_VNNI;
constexpr bool kWidens = true;
INLINE I16 low_halves(I16 w) { return iand(w, iall(0x0f0f0f0f)); }
INLINE I16 high_halves(I16 w) { return iand(shift_right<4>(w), iall(0x0f0f0f0f)); }

// 24 sums, 4 steps of weights and one of inputs in 32 registers.
constexpr int kTileRows = 6, kTilePanels = 4;
constexpr int kWordTile = 12;
