// Elementary functions on sixteen lanes in float32, accurate to a few units in the last place.
//
// The polynomials were fitted with numpy for barkfast: least squares at 600 Chebyshev nodes of the interval, reweighted
// (Lawson) until the relative error of the function is even. The coefficients were rounded to float32 one by one,
// lowest first, and the rest refitted each time. Included inside a level's namespace, after simd_*.h.

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(x - n ln 2) - 1 for |x - n ln 2| up to ln 2 / 2; fit error 1.4e-8.
INLINE F16 exp_minus_1_near(F16 x, F16 n) {
    // ln 2 in two parts. The first has so few bits that n times it is exact.
    const F16 r = fma(n, all(-3.19461833e-05f), fma(n, all(-0.693115234f), x));
    F16 p = all(0.00138706958f);
    p = fma(p, r, all(0.00836627185f));
    p = fma(p, r, all(0.0416674353f));
    p = fma(p, r, all(0.166665465f));
    p = fma(p, r, all(0.49999997f));
    return fma(mul(r, r), p, r);
}

// Below x = -87.33, next to the smallest normal float, the result is 0, so that slow denormals never arise.
INLINE F16 exp(F16 x) {
    // NaN gets n = 0 and passes through the polynomial. Results for |x| of 89 or more are replaced below.
    const I16 n = round_to_int(select(less(abs(x), all(89.0f)), mul(x, all(1.44269502f)), zero()));
    const F16 fraction = add(exp_minus_1_near(x, to_float(n)), all(1.0f));
    const F16 y = from_bits(iadd(bits(fraction), shift_left<23>(n)));
    return select(less(x, all(-87.33f)), zero(), select(less(all(88.722839f), x), all(kInfinity), y));
}

// exp(x) - 1 for x up to 0, without cancellation near 0.
INLINE F16 exp_minus_1(F16 x) {
    const F16 bounded = max(all(-30.0f), x);
    // As above, NaN gets n = 0.
    const I16 n = round_to_int(select(less(bounded, all(1.0f)), mul(bounded, all(1.44269502f)), zero()));
    const F16 scale = from_bits(shift_left<23>(iadd(n, iall(127))));
    return fma(scale, exp_minus_1_near(bounded, to_float(n)), sub(scale, all(1.0f)));
}

// For numbers above 0 that are not denormal. Fit error 6e-9.
INLINE F16 log(F16 x) {
    // x = 2^n (1 + f) with 1 + f from sqrt(1/2), whose bits are 3f3504f3, to sqrt(2).
    const I16 offset = iadd(bits(x), iall(0x3f800000 - 0x3f3504f3));
    const F16 n = to_float(isub(shift_right<23>(offset), iall(127)));
    const F16 f = sub(from_bits(iadd(iand(offset, iall(0x7fffff)), iall(0x3f3504f3))), all(1.0f));
    F16 p = all(-0.0763639957f);
    p = fma(p, f, all(0.127621993f));
    p = fma(p, f, all(-0.131596133f));
    p = fma(p, f, all(0.142015815f));
    p = fma(p, f, all(-0.166234091f));
    p = fma(p, f, all(0.200012416f));
    p = fma(p, f, all(-0.250008196f));
    p = fma(p, f, all(0.333333313f));
    const F16 square = mul(f, f);
    // Add the small terms first.
    F16 y = fma(mul(square, f), p, mul(n, all(3.19461833e-05f)));
    y = fma(square, all(-0.5f), y);
    y = add(y, f);
    y = fma(n, all(0.693115234f), y);
    return select(less(x, all(kInfinity)), y, x);
}

INLINE F16 sigmoid(F16 x) { return div(all(1.0f), add(all(1.0f), exp(sub(zero(), x)))); }

// For |x| up to 5/8, a fit of (tanh(x) / x - 1) / x^2 in x^2, error 5e-9.
INLINE F16 tanh(F16 x) {
    const F16 size = abs(x), square = mul(x, x);
    F16 p = all(-0.0056922962f);
    p = fma(p, square, all(0.0206281673f));
    p = fma(p, square, all(-0.0537365153f));
    p = fma(p, square, all(0.133314058f));
    p = fma(p, square, all(-0.333332807f));
    const F16 small = fma(mul(x, square), p, x);
    const F16 large = sub(all(1.0f), div(all(2.0f), add(exp(add(size, size)), all(1.0f))));
    const I16 sign = iand(bits(x), iall(INT32_MIN));
    return select(less(size, all(0.625f)), small, from_bits(ixor(bits(large), sign)));
}

// x Phi(x), Phi being the normal distribution (the exact GELU, by erf): max(x, 0) - |x| Phi(-|x|).
INLINE F16 gelu(F16 x) {
    // Beyond 14 the second term is 0. The order of the operands lets NaN pass through min and max.
    const F16 a = min(all(14.0f), abs(x));
    // exp(a^2 / 2) Phi(-a) (a + 3) / 3 as a polynomial in 1 - 6 / (a + 3); fit error 5e-8.
    const F16 near = div(all(3.0f), add(a, all(3.0f)));
    const F16 s = fma(near, all(-2.0f), all(1.0f));
    F16 p = all(-9.0161775e-05f);
    p = fma(p, s, all(-0.000303543493f));
    p = fma(p, s, all(0.000358313206f));
    p = fma(p, s, all(0.002309656f));
    p = fma(p, s, all(-0.00349267712f));
    p = fma(p, s, all(-0.0157523789f));
    p = fma(p, s, all(0.0766729787f));
    p = fma(p, s, all(-0.169777408f));
    p = fma(p, s, all(0.243027896f));
    const F16 tail = mul(mul(near, p), exp(mul(mul(a, a), all(-0.5f))));
    return sub(max(zero(), x), mul(a, tail));
}
