// One query's attention against loops in double precision.
#include "check.h"

using namespace barkfast;
using namespace tests;

namespace {

// Number (row, col) of a packed f32 or bf16 matrix.
void put(std::vector<uint8_t>& bytes, Format format, int64_t stride, int64_t row, int64_t col, float x) {
    uint8_t* panel = &bytes[size_t(row / 16 * stride)];
    if (format == Format::f32) {
        std::memcpy(panel + col * 64 + row % 16 * 4, &x, sizeof x);
    } else {
        const uint16_t half = to_bf16(x);
        std::memcpy(panel + col / 2 * 64 + row % 16 * 4 + col % 2 * 2, &half, sizeof half);
    }
}

void check_case(const Kernels& kernels, Format format, int64_t dim, int64_t n) {
    note = isa_name(kernels.isa) + std::string(" format ") + std::to_string(int(format)) + " dim " +
           std::to_string(dim) + " n " + std::to_string(n);
    Numbers numbers(uint64_t(dim * 2000 + n));
    const int64_t capacity = round_up(n, 16) + 16;
    const int64_t key_stride = panel_bytes(format, dim), value_stride = panel_bytes(format, capacity);
    // Bytes of all ones are NaN in both formats: whatever no position has written.
    std::vector<uint8_t> keys(size_t(capacity / 16 * key_stride), 0xff), values(size_t(dim / 16 * value_stride), 0xff);
    std::vector<double> k, v;
    const auto draw = [&] {
        const float x = numbers.uniform(-2, 2);
        return format == Format::f32 ? x : from_bf16(to_bf16(x));
    };
    for (int64_t t = 0; t < n; ++t)
        for (int64_t d = 0; d < dim; ++d) {
            k.push_back(draw());
            v.push_back(draw());
            put(keys, format, key_stride, t, d, float(k.back()));
            put(values, format, value_stride, d, t, float(v.back()));
        }
    const std::vector<float> q = numbers.floats(dim, -2, 2);
    std::vector<float> out(size_t(dim + 16), kNan), scores(size_t(round_up(n, 64)), kNan);
    const float scale = 0.3f;
    kernels.attend({format, capacity, dim, keys.data(), key_stride},
                   {format, dim, capacity, values.data(), value_stride}, n, q.data(), scale, out.data(), scores.data());

    std::vector<double> p;
    double top = -1e30, total = 0;
    for (int64_t t = 0; t < n; ++t) {
        double score = 0;
        for (int64_t d = 0; d < dim; ++d) score += k[size_t(t * dim + d)] * q[size_t(d)];
        p.push_back(scale * score);
        top = std::fmax(top, p.back());
    }
    for (double& x : p) total += x = std::exp(x - top);
    bool close = true;
    for (int64_t d = 0; d < dim; ++d) {
        double expected = 0;
        for (int64_t t = 0; t < n; ++t) expected += p[size_t(t)] / total * v[size_t(t * dim + d)];
        if (!(std::fabs(out[size_t(d)] - expected) < 1e-5)) close = false;
    }
    CHECK(close);
    for (int64_t i = dim; i < dim + 16; ++i) CHECK(std::isnan(out[size_t(i)]));
}

}  // namespace

TEST(attend) {
    for (Isa isa : levels())
        for (Format format : {Format::f32, Format::bf16}) {
            for (int64_t n : {1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 80, 127, 128, 129, 250})
                check_case(kernels(isa), format, 64, n);
            for (int64_t dim : {16, 32, 48, 80, 128}) check_case(kernels(isa), format, dim, 37);
        }
}
