// Tests matrix products against a loop in double precision.
#include <cstdio>
#include <functional>

#include "check.h"

using namespace barkfast;
using namespace tests;

namespace {

struct Weights {
    Matrix matrix;
    std::vector<uint8_t> bytes;
    // The values of the packed numbers, (rows, cols).
    std::vector<double> values;
};

// Packed here by the layout in matrix.h, not by pack.cpp.
Weights random_weights(Format format, int64_t rows, int64_t cols, Numbers& numbers) {
    Weights w;
    const int64_t bytes = panel_bytes(format, cols);
    w.bytes.resize(size_t(panel_count(rows) * bytes));
    w.values.resize(size_t(rows * cols));
    if (format == Format::int8)
        for (int64_t p = 0; p < panel_count(rows); ++p)
            std::memset(&w.bytes[size_t(p * bytes + scale_bytes(cols))], 128, size_t(bytes - scale_bytes(cols)));
    if (format == Format::int4)
        for (int64_t p = 0; p < panel_count(rows); ++p)
            std::memset(&w.bytes[size_t(p * bytes + scale_bytes(cols))], 0x88, size_t(bytes - scale_bytes(cols)));
    for (int64_t row = 0; row < rows; ++row) {
        uint8_t* panel = &w.bytes[size_t(row / 16 * bytes)];
        const int64_t lane = row % 16;
        float scale = 0;
        for (int64_t col = 0; col < cols; ++col) {
            double& value = w.values[size_t(row * cols + col)];
            const float x = numbers.uniform(-1, 1);
            const int64_t group = col / kGroup, place = col % kGroup;
            if (is_quantized(format) && place == 0) {
                const uint16_t half = to_bf16(numbers.uniform(0.001f, 0.02f) * (numbers.word() & 1 ? 1 : -1));
                std::memcpy(panel + (group * 16 + lane) * 2, &half, sizeof half);
                scale = from_bf16(half);
            }
            uint8_t* const steps = panel + scale_bytes(cols) + group * group_bytes(format) + lane * 4 + place % 4;
            if (format == Format::f32) {
                std::memcpy(panel + col * 64 + lane * 4, &x, sizeof x);
                value = x;
            } else if (format == Format::bf16) {
                const uint16_t half = to_bf16(x);
                std::memcpy(panel + col / 2 * 64 + lane * 4 + col % 2 * 2, &half, sizeof half);
                value = from_bf16(half);
            } else if (format == Format::int8) {
                // Whole rows of extreme values: sums in 16 bits would overflow.
                const int32_t q = row % 8 == 0 ? 127 : row % 8 == 1 ? -128 : numbers.integer(-128, 128);
                steps[place / 4 * 64] = uint8_t(q + 128);
                value = double(q) * scale;
            } else {
                const int32_t q = row % 8 == 0 ? 7 : row % 8 == 1 ? -8 : numbers.integer(-8, 8);
                uint8_t& byte = steps[place % 16 / 4 * 64];
                byte = uint8_t(place < 16 ? (byte & 0xf0) | (q + 8) : (byte & 0x0f) | (q + 8) << 4);
                value = double(q) * scale;
            }
        }
    }
    w.matrix = {format, rows, cols, w.bytes.data(), bytes};
    return w;
}

struct Inputs {
    Input input;
    std::vector<uint8_t> bytes;
    std::vector<float> scales;
    std::vector<int32_t> sums;
    std::vector<double> values;

    // Row `row` alone.
    Input from(int64_t row) const {
        Input one = input;
        one.data = bytes.data() + row * input.stride;
        if (input.scales) one.scales += row * input.group_stride;
        if (input.sums) one.sums += row * input.group_stride;
        return one;
    }
};

Inputs random_inputs(InputType type, int64_t rows, int64_t cols, Numbers& numbers) {
    Inputs x;
    const int64_t stride = input_bytes(type, cols), groups = ceil_div(cols, kGroup), group_stride = groups + 3;
    x.bytes.resize(size_t(rows * stride));
    x.scales.assign(size_t(rows * group_stride), kNan);
    x.sums.assign(size_t(rows * group_stride), 1 << 30);
    x.values.resize(size_t(rows * cols));
    for (int64_t row = 0; row < rows; ++row) {
        uint8_t* const to = &x.bytes[size_t(row * stride)];
        for (int64_t col = 0; col < cols; ++col) {
            double& value = x.values[size_t(row * cols + col)];
            const float number = numbers.uniform(-1, 1);
            if (type == InputType::f32) {
                std::memcpy(to + 4 * col, &number, sizeof number);
                value = number;
            } else if (type == InputType::bf16) {
                const uint16_t half = to_bf16(number);
                std::memcpy(to + 2 * col, &half, sizeof half);
                value = from_bf16(half);
            } else {
                const size_t group = size_t(row * group_stride + col / kGroup);
                if (col % kGroup == 0) {
                    x.scales[group] = numbers.uniform(0.001f, 0.02f);
                    x.sums[group] = 0;
                }
                const int32_t q = row % 4 == 0 ? 127 : row % 4 == 1 ? -127 : numbers.integer(-127, 128);
                to[col] = uint8_t(q);
                x.sums[group] += q;
                value = double(q) * x.scales[group];
            }
        }
    }
    const bool quantized = type == InputType::int8;
    x.input = {type,
               x.bytes.data(),
               stride,
               quantized ? x.scales.data() : nullptr,
               quantized ? x.sums.data() : nullptr,
               quantized ? group_stride : 0};
    return x;
}

struct Case {
    Format format;
    InputType input;
    int64_t rows, cols, inputs;
    // Range of panels to compute.
    int64_t first, last;
    Epilogue then;
    bool has_bias;
};

void check_case(const Kernels& kernels, const Case& c) {
    char text[200];
    std::snprintf(text, sizeof text, "%s format %d input %d rows %d cols %d inputs %d panels %d..%d then %d bias %d",
                  isa_name(kernels.isa), int(c.format), int(c.input), int(c.rows), int(c.cols), int(c.inputs),
                  int(c.first), int(c.last), int(c.then), int(c.has_bias));
    note = text;
    Numbers numbers(uint64_t(c.rows * 1000 + c.cols * 10 + c.inputs));
    Weights w = random_weights(c.format, c.rows, c.cols, numbers);
    if (is_quantized(c.format) && c.input == InputType::bf16)
        // The kernel dequantizes to bfloat16 first.
        for (double& value : w.values) value = from_bf16(to_bf16(float(value)));
    const Inputs x = random_inputs(c.input, c.inputs, c.cols, numbers);
    const int64_t width = panel_count(c.rows) * 16, stride = width + 5;
    const std::vector<float> bias = numbers.floats(width), before = numbers.floats(c.inputs * stride);
    // y is NaN except where Epilogue::add adds to it: nothing else may be read.
    std::vector<float> y(size_t(c.inputs * stride), kNan);
    if (c.then == Epilogue::add)
        for (int64_t row = 0; row < c.inputs; ++row)
            for (int64_t i = 16 * c.first; i < 16 * c.last; ++i)
                y[size_t(row * stride + i)] = before[size_t(row * stride + i)];
    const std::vector<float> start = y;
    Output output = {y.data(), stride, c.has_bias ? bias.data() : nullptr, c.then};
    kernels.linear(w.matrix, x.input, c.inputs, output, c.first, c.last);

    bool close = true, outside = true;
    for (int64_t row = 0; row < c.inputs; ++row)
        for (int64_t i = 0; i < stride; ++i) {
            const float got = y[size_t(row * stride + i)];
            if (i < 16 * c.first || i >= 16 * c.last) {
                outside = outside && std::isnan(got);
                continue;
            }
            double product = 0, magnitude = 0;
            for (int64_t col = 0; col < c.cols && i < c.rows; ++col) {
                const double term = w.values[size_t(i * c.cols + col)] * x.values[size_t(row * c.cols + col)];
                product += term;
                magnitude += std::fabs(term);
            }
            if (c.has_bias) product += bias[size_t(i)];
            if (c.then == Epilogue::gelu) product = exact_gelu(product);
            if (c.then == Epilogue::add) product += before[size_t(row * stride + i)];
            // Tolerance for float32 sums. A column too many or too few would change a sum by about magnitude / cols.
            if (!(std::fabs(got - product) <= 2e-6 * magnitude + 1e-6)) close = false;
        }
    CHECK(close);
    CHECK(outside);

    // A result does not depend on the other rows and panels of the call.
    std::vector<float> alone = start;
    for (int64_t row = 0; row < c.inputs; ++row)
        for (int64_t panel = c.first; panel < c.last; ++panel) {
            Output one = output;
            one.data = alone.data() + row * stride;
            kernels.linear(w.matrix, x.from(row), 1, one, panel, panel + 1);
        }
    CHECK(same_bits(alone, y));
}

std::vector<InputType> input_types(const Kernels& kernels, Format format) {
    const InputType few = is_quantized(format) ? InputType::int8 : InputType::f32;
    const InputType many = kernels.many_inputs[int(format)];
    return few == many ? std::vector<InputType>{few} : std::vector<InputType>{few, many};
}

// The levels that this machine can run, and the emulated tiles.
std::vector<std::reference_wrapper<const Kernels>> all_kernels() {
    std::vector<std::reference_wrapper<const Kernels>> all{emulated_tiles()};
    for (Isa isa : levels()) all.push_back(kernels(isa));
    return all;
}

}  // namespace

TEST(linear) {
    for (const Kernels& k : all_kernels()) {
        for (Format format : {Format::f32, Format::bf16, Format::int8, Format::int4})
            for (InputType type : input_types(k, format)) {
                for (int64_t inputs = 1; inputs <= 13; ++inputs)
                    check_case(k, {format, type, 40, 100, inputs, 0, 3, Epilogue::store, false});
                check_case(k, {format, type, 40, 96, 3, 0, 3, Epilogue::gelu, true});
                check_case(k, {format, type, 40, 768, 5, 0, 3, Epilogue::add, true});
                check_case(k, {format, type, 40, 100, 2, 1, 2, Epilogue::add, false});
                check_case(k, {format, type, 40, 100, 7, 2, 3, Epilogue::store, true});
                check_case(k, {format, type, 40, 100, 7, 1, 1, Epilogue::store, true});
                // An odd number of columns, whole tiles of panels and every remainder.
                for (int64_t panels = 4; panels <= 9; ++panels)
                    check_case(k, {format, type, 16 * panels - 3, 33, 7, 0, panels, Epilogue::gelu, false});
                check_case(k, {format, type, 1, 1, 1, 0, 1, Epilogue::store, false});
            }
    }
}

// More inputs than fit a cache: they are processed in several blocks.
TEST(linear_of_many_rows) {
    for (const Kernels& k : all_kernels())
        for (Format format : {Format::f32, Format::bf16, Format::int8, Format::int4})
            for (InputType type : input_types(k, format)) {
                check_case(k, {format, type, 20, 2048, 61, 0, 2, Epilogue::store, true});
                check_case(k, {format, type, 90, 96, 141, 1, 6, Epilogue::add, true});
                check_case(k, {format, type, 90, 130, 37, 0, 5, Epilogue::gelu, false});
            }
}
