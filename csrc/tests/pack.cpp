// Tests that packing and unpacking restore a matrix, and a product with a packed matrix.
#include "barkfast/pack.h"

#include <algorithm>

#include "check.h"

using namespace barkfast;
using namespace tests;

namespace {

struct Packed {
    std::vector<uint8_t> bytes;
    Matrix matrix;
    bool good;
};

Packed pack(const std::vector<float>& numbers, Format format, int64_t rows, int64_t cols, int threads) {
    Packed p;
    p.bytes.assign(size_t(packed_bytes(format, rows, cols)), 0xff);
    p.good = pack_matrix({SourceType::f32, rows, cols, numbers.data()}, format, p.bytes.data(), threads);
    p.matrix = {format, rows, cols, p.bytes.data(), panel_bytes(format, cols)};
    return p;
}

// Allowed rounding error of a number in a group with this largest magnitude.
double tolerance(Format format, double number, double largest) {
    if (format == Format::f32) return 0;
    if (format == Format::bf16) return std::fabs(number) / 256;
    // One unit, plus the rounding of the scale. int4 needs it all, because it has -8 but no 8.
    return format == Format::int8 ? largest / 127 * 1.01 : largest / 8 * 1.05;
}

}  // namespace

TEST(pack) {
    for (Format format : {Format::f32, Format::bf16, Format::int8, Format::int4})
        for (int64_t cols : {1, 31, 32, 100})
            for (int threads : {1, 3}) {
                const int64_t rows = 40;
                note = "format " + std::to_string(int(format)) + " cols " + std::to_string(cols);
                Numbers random{uint64_t(cols)};
                std::vector<float> numbers = random.floats(rows * cols, -2, 2);
                const Packed p = pack(numbers, format, rows, cols, threads);
                CHECK(p.good);
                std::vector<float> back(numbers.size(), kNan);
                unpack_matrix(p.matrix, back.data());
                bool close = true;
                for (int64_t i = 0; i < rows * cols; ++i) {
                    const int64_t start = i - i % cols % kGroup, end = std::min(start + kGroup, (i / cols + 1) * cols);
                    double largest = 0;
                    for (int64_t j = start; j < end; ++j) largest = std::fmax(largest, std::fabs(numbers[size_t(j)]));
                    const double number = numbers[size_t(i)];
                    close = close && std::fabs(back[size_t(i)] - number) <= tolerance(format, number, largest);
                }
                CHECK(close);
                numbers[size_t(rows * cols / 2)] = kNan;
                CHECK(!pack(numbers, format, rows, cols, threads).good);
            }
}

TEST(pack_and_multiply) {
    const int64_t rows = 40, cols = 100;
    Numbers random(9);
    const std::vector<float> numbers = random.floats(rows * cols), x = random.floats(cols);
    std::vector<float> padded = x;
    padded.resize(size_t(round_up(cols, kGroup)), 0.0f);
    for (Isa isa : levels())
        for (Format format : {Format::f32, Format::bf16, Format::int8, Format::int4}) {
            note = isa_name(isa) + std::string(" format ") + std::to_string(int(format));
            const Packed p = pack(numbers, format, rows, cols, 1);
            std::vector<float> weights(numbers.size()), y(48, kNan);
            unpack_matrix(p.matrix, weights.data());
            std::vector<int8_t> q(128);
            std::vector<float> scales(4);
            std::vector<int32_t> sums(4);
            Input input = {InputType::f32, padded.data(), 128 * 4, nullptr, nullptr, 0};
            if (is_quantized(format)) {
                kernels(isa).quantize(x.data(), cols, q.data(), scales.data(), sums.data());
                input = {InputType::int8, q.data(), 128, scales.data(), sums.data(), 4};
            }
            kernels(isa).linear(p.matrix, input, 1, {y.data(), 48, nullptr, Epilogue::store}, 0, 3);
            for (int64_t row = 0; row < rows; ++row) {
                double expected = 0;
                for (int64_t c = 0; c < cols; ++c) {
                    const double number =
                        is_quantized(format) ? double(q[size_t(c)]) * scales[size_t(c / kGroup)] : x[size_t(c)];
                    expected += weights[size_t(row * cols + c)] * number;
                }
                CHECK(std::fabs(y[size_t(row)] - expected) < 1e-4);
            }
            for (int64_t row = rows; row < 48; ++row) CHECK(y[size_t(row)] == 0);
        }
}
