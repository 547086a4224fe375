// Tests one query's attention against loops in double precision.
#include "barkfast/kv.h"
#include "check.h"

using namespace barkfast;
using namespace tests;

namespace {

// Write element (row, col) of a packed f32 or bf16 matrix.
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
    // 0xff bytes are NaN in both formats. They mark all that no position has written.
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

// As above with an int8 cache, filled by KvCache. The test reads its numbers by the layout in kv.h.
void check_int8(const Kernels& kernels, int64_t dim, int64_t n) {
    note = isa_name(kernels.isa) + std::string(" int8 dim ") + std::to_string(dim) + " n " + std::to_string(n);
    Numbers numbers(uint64_t(dim * 3000 + n));
    KvCache cache;
    cache.format = Format::int8;
    cache.n_layer = cache.n_slots = cache.n_head = 2;
    cache.head_dim = dim;
    cache.capacity = round_up(n, 16) + 16;
    // 0xff bytes are NaN in scales. They mark all that no position has written.
    std::vector<uint8_t> keys(size_t(cache.total_bytes()), 0xff), values(keys);
    cache.key_data = keys.data();
    cache.value_data = values.data();
    const std::vector<float> k = numbers.floats(n * dim, -2, 2), v = numbers.floats(n * dim, -2, 2);
    // The first half in one call, the others one by one.
    const int64_t together = n / 2;
    cache.write(1, 0, 1, 0, together, k.data(), v.data(), dim);
    for (int64_t t = together; t < n; ++t) cache.append(1, 0, 1, t, &k[size_t(t * dim)], &v[size_t(t * dim)]);

    const int64_t block = cache.capacity * (dim + 4) * 5;
    const int8_t* const key_bytes = reinterpret_cast<const int8_t*>(&keys[size_t(block)]);
    const int8_t* const value_bytes = reinterpret_cast<const int8_t*>(&values[size_t(block)]);
    const float* const key_scales = reinterpret_cast<const float*>(key_bytes + cache.capacity * dim);
    const float* const value_scales = reinterpret_cast<const float*>(value_bytes + cache.capacity * dim);
    const auto key = [&](int64_t t, int64_t d) {
        return double(key_bytes[t / 16 * 16 * dim + d * 16 + t % 16]) * key_scales[t];
    };
    const auto value = [&](int64_t t, int64_t d) {
        return double(value_bytes[d / 16 * 16 * cache.capacity + t * 16 + d % 16]) * value_scales[t];
    };
    bool near = true;
    for (int64_t t = 0; t < n; ++t)
        for (int64_t d = 0; d < dim; ++d) {
            near &= std::fabs(key(t, d) - k[size_t(t * dim + d)]) <= 0.501 * key_scales[t];
            near &= std::fabs(value(t, d) - v[size_t(t * dim + d)]) <= 0.501 * value_scales[t];
        }
    CHECK(near);

    const std::vector<float> q = numbers.floats(dim, -2, 2);
    std::vector<float> out(size_t(dim + 16), kNan), scores(size_t(round_up(n, 64)), kNan);
    kernels.attend(cache.keys(1, 0, 1), cache.values(1, 0, 1), n, q.data(), 0.3f, out.data(), scores.data());
    std::vector<double> p;
    double top = -1e30, total = 0;
    for (int64_t t = 0; t < n; ++t) {
        double score = 0;
        for (int64_t d = 0; d < dim; ++d) score += key(t, d) * q[size_t(d)];
        p.push_back(0.3 * score);
        top = std::fmax(top, p.back());
    }
    for (double& x : p) total += x = std::exp(x - top);
    bool close = true;
    for (int64_t d = 0; d < dim; ++d) {
        double expected = 0;
        for (int64_t t = 0; t < n; ++t) expected += p[size_t(t)] / total * value(t, d);
        close &= std::fabs(out[size_t(d)] - expected) < 1e-5;
    }
    CHECK(close);
    for (int64_t i = dim; i < dim + 16; ++i) CHECK(std::isnan(out[size_t(i)]));
}

}  // namespace

TEST(attend_int8) {
    for (Isa isa : levels()) {
        for (int64_t n : {1, 2, 15, 16, 17, 33, 48, 63, 64, 65, 80, 129, 250}) check_int8(kernels(isa), 64, n);
        for (int64_t dim : {16, 32, 48, 80, 128}) check_int8(kernels(isa), dim, 37);
    }
}

TEST(int8_keys_that_are_not_numbers_stay_so) {
    KvCache cache;
    cache.format = Format::int8;
    cache.n_layer = cache.n_slots = cache.n_head = 1;
    cache.head_dim = cache.capacity = 16;
    std::vector<uint8_t> keys(size_t(cache.total_bytes())), values(keys);
    cache.key_data = keys.data();
    cache.value_data = values.data();
    std::vector<float> small(16, 1e-38f), zeros(16), odd(16, 1.0f);
    cache.append(0, 0, 0, 0, small.data(), zeros.data());
    CHECK(cache.key_scales(0, 0, 0)[0] == 0 && cache.value_scales(0, 0, 0)[0] == 0 && keys[0] == 0);
    for (float x : {kNan, kInfinity, -kInfinity})
        for (size_t i : {0, 15}) {
            odd[i] = x;
            cache.append(0, 0, 0, 1, odd.data(), odd.data());
            CHECK(std::isnan(cache.key_scales(0, 0, 0)[1]) && std::isnan(cache.value_scales(0, 0, 0)[1]));
            odd[i] = 1.0f;
        }
    // Of huge numbers, the largest becomes -127 or 127.
    odd[3] = -3e38f;
    cache.append(0, 0, 0, 1, odd.data(), odd.data());
    CHECK(int8_t(keys[3 * 16 + 1]) == -127 && keys[1] == 0 && std::isfinite(cache.key_scales(0, 0, 0)[1]));
}

TEST(attend) {
    for (Isa isa : levels())
        for (Format format : {Format::f32, Format::bf16}) {
            for (int64_t n : {1, 2, 3, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 80, 127, 128, 129, 250})
                check_case(kernels(isa), format, 64, n);
            for (int64_t dim : {16, 32, 48, 80, 128}) check_case(kernels(isa), format, dim, 37);
        }
}
