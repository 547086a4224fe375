// Sixteen lanes in plain C++: defines and documents the functions that every kernel is written with.
//
// The other simd_*.h files implement the same functions with one instruction set's intrinsics. Compilers vectorize
// these loops for the target's baseline (SSE2, NEON). Included inside a level's namespace, after level.h.

struct F16 {
    float v[16];
};
struct I16 {
    int32_t v[16];
};
// All bits of a lane are set, or none.
struct Mask {
    int32_t v[16];
};

#define LANES for (int i = 0; i < 16; ++i)

// --- float lanes
INLINE F16 all(float x) {
    F16 r;
    LANES r.v[i] = x;
    return r;
}
INLINE F16 zero() { return all(0.0f); }
INLINE F16 load(const float* p) {
    F16 r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
}
INLINE void store(float* p, F16 a) { std::memcpy(p, a.v, sizeof a.v); }
INLINE F16 add(F16 a, F16 b) {
    LANES a.v[i] += b.v[i];
    return a;
}
INLINE F16 sub(F16 a, F16 b) {
    LANES a.v[i] -= b.v[i];
    return a;
}
INLINE F16 mul(F16 a, F16 b) {
    LANES a.v[i] *= b.v[i];
    return a;
}
INLINE F16 div(F16 a, F16 b) {
    LANES a.v[i] /= b.v[i];
    return a;
}
// a * b + c; rounded once where the instruction set has FMA.
INLINE F16 fma(F16 a, F16 b, F16 c) {
    LANES c.v[i] += a.v[i] * b.v[i];
    return c;
}
INLINE F16 abs(F16 a) {
    LANES a.v[i] = std::fabs(a.v[i]);
    return a;
}

// --- comparisons; false where either is NaN
INLINE Mask less(F16 a, F16 b) {
    Mask m;
    LANES m.v[i] = -int32_t(a.v[i] < b.v[i]);
    return m;
}
// On bits: compilers vectorize this, but would branch to select between floats.
INLINE F16 select(Mask m, F16 yes, F16 no) {
    I16 y, n;
    std::memcpy(y.v, yes.v, sizeof y.v);
    std::memcpy(n.v, no.v, sizeof n.v);
    LANES n.v[i] = (m.v[i] & y.v[i]) | (~m.v[i] & n.v[i]);
    std::memcpy(no.v, n.v, sizeof no.v);
    return no;
}
// Returns the second operand if either is NaN, as in SSE.
INLINE F16 max(F16 a, F16 b) { return select(less(b, a), a, b); }
INLINE F16 min(F16 a, F16 b) { return select(less(a, b), a, b); }

// --- across the lanes; on every level, sums add the upper half to the lower half four times
INLINE float sum(F16 a) {
    for (int half = 8; half; half /= 2)
        for (int i = 0; i < half; ++i) a.v[i] += a.v[i + half];
    return a.v[0];
}
INLINE float largest(F16 a) {
    float r = a.v[0];
    LANES r = a.v[i] > r ? a.v[i] : r;
    return r;
}

// --- integer lanes, wrapping
INLINE I16 iall(int32_t x) {
    I16 r;
    LANES r.v[i] = x;
    return r;
}
INLINE I16 iload(const int32_t* p) {
    I16 r;
    std::memcpy(r.v, p, sizeof r.v);
    return r;
}
INLINE void istore(int32_t* p, I16 a) { std::memcpy(p, a.v, sizeof a.v); }
INLINE I16 iadd(I16 a, I16 b) {
    LANES a.v[i] = int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i]));
    return a;
}
INLINE I16 isub(I16 a, I16 b) {
    LANES a.v[i] = int32_t(uint32_t(a.v[i]) - uint32_t(b.v[i]));
    return a;
}
INLINE I16 ixor(I16 a, I16 b) {
    LANES a.v[i] ^= b.v[i];
    return a;
}
INLINE I16 iand(I16 a, I16 b) {
    LANES a.v[i] &= b.v[i];
    return a;
}
// The low and the high 32 bits of the unsigned products.
INLINE I16 imul(I16 a, I16 b) {
    LANES a.v[i] = int32_t(uint32_t(a.v[i]) * uint32_t(b.v[i]));
    return a;
}
INLINE I16 multiply_high(I16 a, I16 b) {
    LANES a.v[i] = int32_t((uint64_t(uint32_t(a.v[i])) * uint32_t(b.v[i])) >> 32);
    return a;
}
template <int N>
INLINE I16 shift_left(I16 a) {
    LANES a.v[i] = int32_t(uint32_t(a.v[i]) << N);
    return a;
}
// Fills with zeros.
template <int N>
INLINE I16 shift_right(I16 a) {
    LANES a.v[i] = int32_t(uint32_t(a.v[i]) >> N);
    return a;
}

// --- conversions between the two
INLINE F16 to_float(I16 a) {
    F16 r;
    LANES r.v[i] = float(a.v[i]);
    return r;
}
INLINE F16 unsigned_to_float(I16 a) {
    F16 r;
    LANES r.v[i] = float(uint32_t(a.v[i]));
    return r;
}
// Round to nearest even; |a| below 2^22. The sum has no bits for a fraction, and its low bits are the integer.
INLINE I16 round_to_int(F16 a) {
    I16 r;
    LANES a.v[i] += 0x1.8p23f;
    std::memcpy(r.v, a.v, sizeof r.v);
    LANES r.v[i] -= 0x4b400000;
    return r;
}
INLINE I16 bits(F16 a) {
    I16 r;
    std::memcpy(r.v, a.v, sizeof r.v);
    return r;
}
INLINE F16 from_bits(I16 a) {
    F16 r;
    std::memcpy(r.v, a.v, sizeof r.v);
    return r;
}

// --- narrow types in memory
INLINE F16 load_bf16(const uint16_t* p) {
    I16 r;
    LANES r.v[i] = int32_t(uint32_t(p[i]) << 16);
    return from_bits(r);
}
// Rounded to nearest even; not for NaN.
INLINE void store_bf16(uint16_t* p, F16 a) {
    const I16 r = bits(a);
    LANES p[i] = uint16_t((uint32_t(r.v[i]) + 0x7fff + ((uint32_t(r.v[i]) >> 16) & 1)) >> 16);
}
// The low bytes; a in -128..127.
INLINE void store_int8(int8_t* p, I16 a) { LANES p[i] = int8_t(a.v[i]); }

// --- matrix steps (matrix.h): 64 bytes of a panel, and the inputs of one step, repeated in all lanes
INLINE I16 load_step(const void* p) { return iload(static_cast<const int32_t*>(p)); }
// Broadcast four bytes to every lane.
INLINE I16 broadcast(const void* p) {
    int32_t x;
    std::memcpy(&x, p, 4);
    return iall(x);
}
// Sixteen signed bytes.
INLINE F16 load_int8(const void* p) {
    int8_t bytes[16];
    std::memcpy(bytes, p, sizeof bytes);
    F16 r;
    LANES r.v[i] = float(bytes[i]);
    return r;
}
// The first and the second column of a bf16 step.
INLINE F16 even_bf16(I16 w) { return from_bits(shift_left<16>(w)); }
INLINE F16 odd_bf16(I16 w) { return from_bits(iand(w, iall(int32_t(0xffff0000u)))); }
// sum += w[0] x[0] + w[1] x[1], both pairs of bf16; only if kDotBf16.
constexpr bool kDotBf16 = false;
INLINE F16 dot_bf16(F16 sum, I16, I16) { return sum; }
// Per lane: sum += the sum of w (unsigned) times x (signed) over the four bytes.
INLINE I16 dot_int8(I16 sum, I16 w, I16 x) {
    LANES {
        const uint32_t u = uint32_t(w.v[i]), s = uint32_t(x.v[i]);
        for (int k = 0; k < 4; ++k) sum.v[i] += int32_t((u >> 8 * k) & 255) * int8_t(uint8_t(s >> 8 * k));
    }
    return sum;
}
// The even and the odd bytes, sign-extended to 16-bit words: two in each lane.
INLINE I16 even_bytes(I16 a) {
    LANES {
        const uint32_t u = uint32_t(a.v[i]);
        a.v[i] = int32_t(uint16_t(int8_t(uint8_t(u))) | uint32_t(uint16_t(int8_t(uint8_t(u >> 16)))) << 16);
    }
    return a;
}
INLINE I16 odd_bytes(I16 a) { return even_bytes(shift_right<8>(a)); }
// Per lane: sum += the sum of w times x over both words, signed.
INLINE I16 dot_words(I16 sum, I16 w, I16 x) {
    LANES {
        const uint32_t u = uint32_t(w.v[i]), s = uint32_t(x.v[i]);
        sum.v[i] +=
            int16_t(uint16_t(u)) * int16_t(uint16_t(s)) + int16_t(uint16_t(u >> 16)) * int16_t(uint16_t(s >> 16));
    }
    return sum;
}
// Whether products of many rows with quantized weights use words (words.h) instead of dot_int8.
constexpr bool kWords = false;
// Whether panels of bfloat16 are converted to float once for many rows (pick.h).
constexpr bool kWidens = false;
// The low and the high half of every byte, as bytes.
INLINE I16 low_halves(I16 w) { return iand(w, iall(0x0f0f0f0f)); }
INLINE I16 high_halves(I16 w) { return iand(shift_right<4>(w), iall(0x0f0f0f0f)); }

// Rows and panels of one tile (linear.h): as many sums as the registers hold.
constexpr int kTileRows = 3, kTilePanels = 1;
// Rows per tile in words.h.
constexpr int kWordTile = 1;

#undef LANES
