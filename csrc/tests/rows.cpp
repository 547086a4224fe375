// Tests norm, quantization, softmax and activations against loops in double precision.
#include <algorithm>
#include <cstdlib>

#include "check.h"

using namespace barkfast;
using namespace tests;

namespace {

const int64_t kWidths[] = {1, 2, 7, 15, 16, 17, 31, 32, 33, 40, 63, 100, 768};

std::string name(Isa isa, int64_t width) { return isa_name(isa) + std::string(" width ") + std::to_string(width); }

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

// Whether everything from n on is still NaN.
bool untouched(const std::vector<float>& y, int64_t n) {
    for (size_t i = size_t(n); i < y.size(); ++i)
        if (!std::isnan(y[i])) return false;
    return true;
}

}  // namespace

TEST(norm) {
    for (Isa isa : levels())
        for (int64_t width : kWidths)
            for (bool has_bias : {false, true}) {
                note = name(isa, width);
                Numbers numbers{uint64_t(width)};
                // A mean far from 0, for which a variance from one pass of sums of squares would be too inaccurate.
                std::vector<float> x = numbers.floats(width, 99, 101);
                const std::vector<float> weight = numbers.floats(width), bias = numbers.floats(width);
                std::vector<float> y(size_t(width + 20), kNan);
                kernels(isa).norm(x.data(), weight.data(), has_bias ? bias.data() : nullptr, width, y.data());
                double mean = 0, variance = 0;
                for (float v : x) mean += v / double(width);
                for (float v : x) variance += (v - mean) * (v - mean) / double(width);
                bool close = true;
                for (size_t i = 0; i < x.size(); ++i) {
                    const double expected =
                        (x[i] - mean) / std::sqrt(variance + 1e-5) * weight[i] + (has_bias ? bias[i] : 0);
                    close = close && std::fabs(y[i] - expected) < 1e-4;
                }
                CHECK(close);
                CHECK(untouched(y, width));
                x[size_t(width / 2)] = kNan;
                kernels(isa).norm(x.data(), weight.data(), nullptr, width, y.data());
                CHECK(std::isnan(y[0]));
            }
}

TEST(quantize) {
    for (Isa isa : levels())
        for (int64_t width : kWidths) {
            note = name(isa, width);
            Numbers numbers{uint64_t(width)};
            const int64_t padded = round_up(width, kGroup), groups = padded / kGroup;
            std::vector<float> x = numbers.floats(width, -3, 3);
            std::vector<int8_t> q(size_t(padded + 8), 99);
            std::vector<float> scales(size_t(groups + 1), kNan);
            std::vector<int32_t> sums(size_t(groups + 1), -7777);
            kernels(isa).quantize(x.data(), width, q.data(), scales.data(), sums.data());
            for (int64_t g = 0; g < groups; ++g) {
                float largest = 0;
                int32_t sum = 0, most = 0;
                bool close = true;
                for (int64_t i = g * kGroup; i < (g + 1) * kGroup; ++i) {
                    const float number = i < width ? x[size_t(i)] : 0.0f;
                    largest = std::fmax(largest, std::fabs(number));
                    sum += q[size_t(i)];
                    most = std::max(most, std::abs(int32_t(q[size_t(i)])));
                    close =
                        close && std::fabs(q[size_t(i)] * scales[size_t(g)] - number) <= 0.5001f * scales[size_t(g)];
                }
                CHECK(close);
                CHECK(most == 127);
                CHECK(sums[size_t(g)] == sum);
                CHECK(std::fabs(scales[size_t(g)] - largest / 127) <= 1e-7f * largest);
            }
            CHECK(std::isnan(scales[size_t(groups)]) && sums[size_t(groups)] == -7777);
            CHECK(q[size_t(padded)] == 99);

            // A group of zeros, a group of denormals, and groups with NaN or infinity.
            for (float value : {0.0f, 1e-44f, kNan, -kInfinity}) {
                for (int64_t i = 0; i < std::min(width, kGroup); ++i) x[size_t(i)] = std::isfinite(value) ? value : 1;
                x[size_t(std::min(width, kGroup) - 1)] = value;
                kernels(isa).quantize(x.data(), width, q.data(), scales.data(), sums.data());
                CHECK(std::isfinite(value) ? scales[0] == 0 : std::isnan(scales[0]));
                CHECK(sums[0] == 0);
                for (int64_t i = 0; i < kGroup; ++i) CHECK(q[size_t(i)] == 0);
                if (groups > 1) CHECK(scales[1] > 0);
            }
        }
}

TEST(to_bf16) {
    for (Isa isa : levels())
        for (int64_t width : kWidths) {
            note = name(isa, width);
            Numbers numbers{uint64_t(width)};
            const int64_t padded = round_up(width, kGroup);
            std::vector<float> x = numbers.floats(width, -1e3f, 1e3f);
            // Ties, a denormal number, one that rounds to infinity, -infinity, and a NaN of all ones.
            const uint32_t special[] = {0x3f808000, 0x3f818000, 0x00012345, 0x7f7fffff, 0xff800000, 0xffffffff};
            for (int i = 0; i < 6 && i < width; ++i) std::memcpy(&x[size_t(width - 1 - i)], &special[i], 4);
            std::vector<uint16_t> y(size_t(padded + 1), 0x1234);
            kernels(isa).to_bf16(x.data(), width, y.data());
            for (int64_t i = 0; i < padded; ++i) {
                const float number = i < width ? x[size_t(i)] : 0.0f;
                if (std::isnan(number))
                    CHECK(std::isnan(from_bf16(y[size_t(i)])));
                else
                    CHECK(y[size_t(i)] == tests::to_bf16(number));
            }
            CHECK(y[size_t(padded)] == 0x1234);
        }
}

TEST(softmax) {
    for (Isa isa : levels())
        for (int64_t n : kWidths)
            for (float range : {1.0f, 1000.0f}) {
                note = name(isa, n);
                Numbers numbers{uint64_t(n)};
                const int64_t padded = round_up(n, 64);
                std::vector<float> x(size_t(padded + 3), kNan);
                for (int64_t i = 0; i < n; ++i) x[size_t(i)] = numbers.uniform(-range, range);
                std::vector<double> p;
                double total = 0, top = -1e30;
                for (int64_t i = 0; i < n; ++i) top = std::fmax(top, x[size_t(i)]);
                for (int64_t i = 0; i < n; ++i) p.push_back(std::exp(0.125 * (x[size_t(i)] - top)));
                for (double v : p) total += v;
                kernels(isa).softmax(x.data(), n, padded, 0.125f);
                bool close = true, zeros = true;
                for (int64_t i = 0; i < n; ++i) close = close && std::fabs(x[size_t(i)] - p[size_t(i)] / total) < 1e-6;
                for (int64_t i = n; i < padded; ++i) zeros = zeros && x[size_t(i)] == 0;
                CHECK(close);
                CHECK(zeros);
                CHECK(untouched(x, padded));
            }
}

TEST(elu) {
    for (Isa isa : levels())
        for (int64_t n : kWidths) {
            note = name(isa, n);
            Numbers numbers{uint64_t(n)};
            std::vector<float> x = numbers.floats(n, -10, 3), y(size_t(n + 20), kNan);
            if (n > 8) {
                const float special[] = {0, -1e-6f, -200, -kInfinity, kInfinity, 1e30f, -1e30f};
                std::memcpy(&x[size_t(n - 7)], special, sizeof special);
            }
            kernels(isa).elu(x.data(), n, y.data());
            for (int64_t i = 0; i < n; ++i) {
                const double v = x[size_t(i)], expected = v > 0 ? v : std::expm1(v);
                CHECK(y[size_t(i)] == expected || std::fabs(y[size_t(i)] - expected) <= 2e-7 * std::fabs(expected));
            }
            CHECK(untouched(y, n));
            x[size_t(n - 1)] = kNan;
            kernels(isa).elu(x.data(), n, y.data());
            CHECK(std::isnan(y[size_t(n - 1)]));
        }
}

TEST(lstm_cell) {
    for (Isa isa : levels())
        for (int64_t width : kWidths) {
            note = name(isa, width);
            Numbers numbers{uint64_t(width)};
            std::vector<float> gates = numbers.floats(4 * width, -6, 6), cell = numbers.floats(width + 20, -2, 2);
            gates[0] = 1e4f;
            gates[size_t(width)] = -1e4f;
            const std::vector<float> before = cell;
            std::vector<float> hidden(size_t(width + 20), kNan);
            kernels(isa).lstm_cell(gates.data(), width, cell.data(), hidden.data());
            for (size_t i = 0, w = size_t(width); i < w; ++i) {
                const double state =
                    sigmoid(gates[w + i]) * before[i] + sigmoid(gates[i]) * std::tanh(gates[2 * w + i]);
                CHECK(std::fabs(cell[i] - state) < 1e-6);
                CHECK(std::fabs(hidden[i] - sigmoid(gates[3 * w + i]) * std::tanh(state)) < 1e-6);
            }
            CHECK(std::memcmp(&cell[size_t(width)], &before[size_t(width)], 20 * sizeof(float)) == 0);
            CHECK(untouched(hidden, width));
        }
}

TEST(add) {
    for (Isa isa : levels())
        for (int64_t n : kWidths) {
            note = name(isa, n);
            Numbers numbers{uint64_t(n)};
            const std::vector<float> x = numbers.floats(n), before = numbers.floats(n);
            std::vector<float> y = before;
            y.resize(size_t(n + 20), kNan);
            kernels(isa).add(x.data(), n, y.data());
            for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == before[i] + x[i]);
            CHECK(untouched(y, n));
        }
}
