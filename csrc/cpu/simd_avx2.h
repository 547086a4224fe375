// Sixteen lanes in two AVX2 registers: the functions of simd_scalar.h, which documents them.
//
// HAS_VNNI says whether there is a dot product of bytes. Included inside a level's namespace and target region.

struct F16 {
    __m256 lo, hi;
};
struct I16 {
    __m256i lo, hi;
};
struct Mask {
    __m256 lo, hi;
};

// --- float lanes
INLINE F16 all(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
INLINE F16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
INLINE F16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
INLINE void store(float* p, F16 a) {
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
INLINE F16 add(F16 a, F16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
INLINE F16 sub(F16 a, F16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
INLINE F16 mul(F16 a, F16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
INLINE F16 div(F16 a, F16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
INLINE F16 fma(F16 a, F16 b, F16 c) { return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)}; }
INLINE F16 max(F16 a, F16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
INLINE F16 min(F16 a, F16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
INLINE F16 abs(F16 a) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return {_mm256_andnot_ps(sign, a.lo), _mm256_andnot_ps(sign, a.hi)};
}

// --- comparisons
INLINE Mask less(F16 a, F16 b) {
    return {_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ), _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)};
}
INLINE F16 select(Mask m, F16 yes, F16 no) {
    return {_mm256_blendv_ps(no.lo, yes.lo, m.lo), _mm256_blendv_ps(no.hi, yes.hi, m.hi)};
}

// --- across the lanes
INLINE float sum(F16 a) {
    const __m256 h = _mm256_add_ps(a.lo, a.hi);
    const __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}
INLINE float largest(F16 a) {
    const __m256 h = _mm256_max_ps(a.lo, a.hi);
    const __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
    const __m128 d = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

// --- integer lanes
INLINE I16 iall(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
INLINE I16 load_step(const void* p) {
    const __m256i* q = static_cast<const __m256i*>(p);
    return {_mm256_loadu_si256(q), _mm256_loadu_si256(q + 1)};
}
INLINE I16 iload(const int32_t* p) { return load_step(p); }
INLINE void istore(int32_t* p, I16 a) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.lo);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 8), a.hi);
}
INLINE I16 iadd(I16 a, I16 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
INLINE I16 isub(I16 a, I16 b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
INLINE I16 ixor(I16 a, I16 b) { return {_mm256_xor_si256(a.lo, b.lo), _mm256_xor_si256(a.hi, b.hi)}; }
INLINE I16 iand(I16 a, I16 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
INLINE I16 imul(I16 a, I16 b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
INLINE __m256i multiply_high(__m256i a, __m256i b) {
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(a, b), 32);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), _mm256_srli_epi64(b, 32));
    return _mm256_blend_epi32(even, odd, 0xaa);
}
INLINE I16 multiply_high(I16 a, I16 b) { return {multiply_high(a.lo, b.lo), multiply_high(a.hi, b.hi)}; }
template <int N>
INLINE I16 shift_left(I16 a) {
    return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
template <int N>
INLINE I16 shift_right(I16 a) {
    return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}

// --- conversions between the two
INLINE F16 to_float(I16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
// Convert the halves separately, so that only their sum is rounded.
INLINE F16 unsigned_to_float(I16 a) {
    const F16 high = to_float(shift_right<16>(a)), low = to_float(iand(a, iall(0xffff)));
    return fma(high, all(65536.0f), low);
}
INLINE I16 round_to_int(F16 a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
INLINE I16 bits(F16 a) { return {_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
INLINE F16 from_bits(I16 a) { return {_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }

// --- narrow types in memory
INLINE F16 load_bf16(const uint16_t* p) {
    const __m128i* q = reinterpret_cast<const __m128i*>(p);
    const I16 wide = {_mm256_cvtepu16_epi32(_mm_loadu_si128(q)), _mm256_cvtepu16_epi32(_mm_loadu_si128(q + 1))};
    return from_bits(shift_left<16>(wide));
}
INLINE void store_bf16(uint16_t* p, F16 a) {
    const I16 odd = iand(shift_right<16>(bits(a)), iall(1));
    const I16 rounded = shift_right<16>(iadd(iadd(bits(a), iall(0x7fff)), odd));
    // Packing works within 128-bit halves; the permutation restores the order.
    const __m256i packed = _mm256_packus_epi32(rounded.lo, rounded.hi);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permute4x64_epi64(packed, 0xd8));
}
INLINE void store_int8(int8_t* p, I16 a) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
}

// --- matrix steps
INLINE I16 broadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return iall(x);
}
INLINE F16 load_int8(const void* p) {
    const __m128i* q = static_cast<const __m128i*>(p);
    return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(q))),
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(
                _mm_loadl_epi64(reinterpret_cast<const __m128i*>(static_cast<const uint8_t*>(p) + 8))))};
}
INLINE F16 even_bf16(I16 w) { return from_bits(shift_left<16>(w)); }
INLINE F16 odd_bf16(I16 w) { return from_bits(iand(w, iall(int32_t(0xffff0000u)))); }
constexpr bool kDotBf16 = false;
INLINE F16 dot_bf16(F16 sum, I16, I16) { return sum; }
INLINE __m256i dot_int8(__m256i sum, __m256i w, __m256i x) {
#if HAS_VNNI
    return _mm256_dpbusd_avx_epi32(sum, w, x);
#else
    // Even and odd bytes as 16-bit numbers: sums of two products fit 32 bits, where vpmaddubsw would saturate.
    const __m256i even = _mm256_madd_epi16(_mm256_and_si256(w, _mm256_set1_epi16(0x00ff)),
                                           _mm256_srai_epi16(_mm256_slli_epi16(x, 8), 8));
    const __m256i odd = _mm256_madd_epi16(_mm256_srli_epi16(w, 8), _mm256_srai_epi16(x, 8));
    return _mm256_add_epi32(sum, _mm256_add_epi32(even, odd));
#endif
}
INLINE I16 dot_int8(I16 sum, I16 w, I16 x) { return {dot_int8(sum.lo, w.lo, x.lo), dot_int8(sum.hi, w.hi, x.hi)}; }
INLINE I16 even_bytes(I16 a) {
    return {_mm256_srai_epi16(_mm256_slli_epi16(a.lo, 8), 8), _mm256_srai_epi16(_mm256_slli_epi16(a.hi, 8), 8)};
}
INLINE I16 odd_bytes(I16 a) { return {_mm256_srai_epi16(a.lo, 8), _mm256_srai_epi16(a.hi, 8)}; }
INLINE I16 dot_words(I16 sum, I16 w, I16 x) {
    // No intrinsic: with it GCC 12 does all multiplications first and spills their results to memory.
    __asm__("vpaddd %1, %0, %0" : "+x"(sum.lo) : "x"(_mm256_madd_epi16(w.lo, x.lo)));
    __asm__("vpaddd %1, %0, %0" : "+x"(sum.hi) : "x"(_mm256_madd_epi16(w.hi, x.hi)));
    return sum;
}
constexpr bool kWords = !HAS_VNNI;
constexpr bool kWidens = true;
INLINE I16 low_halves(I16 w) { return iand(w, iall(0x0f0f0f0f)); }
INLINE I16 high_halves(I16 w) { return iand(shift_right<4>(w), iall(0x0f0f0f0f)); }

// 6 sums of two registers each leave 4 of the 16 registers for weights and inputs.
constexpr int kTileRows = 3, kTilePanels = 2;
// 5 sums of two registers, and one step of weights.
constexpr int kWordTile = 5;
