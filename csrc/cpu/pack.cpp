#include "barkfast/pack.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace barkfast {
namespace {

uint32_t float_bits(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

float bits_float(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// Round to nearest even; not for NaN.
uint16_t to_bf16(float x) {
    const uint32_t bits = float_bits(x);
    return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(uint16_t x) { return bits_float(uint32_t(x) << 16); }

// A multiplication moves the exponent, which handles subnormal numbers too.
float from_f16(uint16_t x) {
    const uint32_t sign = uint32_t(x & 0x8000) << 16, rest = uint32_t(x & 0x7fff) << 13;
    const float magnitude = bits_float(rest) * 0x1p112f;
    return bits_float(sign | ((x & 0x7c00) == 0x7c00 ? rest | 0x7f800000 : float_bits(magnitude)));
}

// Round to nearest even; |x| below 2^22. The sum has no bits for a fraction, and its low bits are the integer.
int32_t round_to_int(float x) { return int32_t(float_bits(x + 0x1.8p23f)) - 0x4b400000; }

// Returns `low` for NaN.
float clamp(float x, float low, float high) { return std::max(low, std::min(x, high)); }

// Load numbers first .. first + n - 1 in row-major order.
void load_numbers(const Source& source, int64_t first, int64_t n, float* x) {
    const uint8_t* from = static_cast<const uint8_t*>(source.data) + first * source_bytes(source.type);
    if (source.type == SourceType::f32) {
        std::memcpy(x, from, n * sizeof(float));
        return;
    }
    for (int64_t i = 0; i < n; ++i) {
        uint16_t half;
        std::memcpy(&half, from + 2 * i, sizeof half);
        x[i] = source.type == SourceType::bf16 ? from_bf16(half) : from_f16(half);
    }
}

// Bits of the largest magnitude. Bits order as the magnitudes do; those of NaN and infinity are the largest.
uint32_t largest_bits(const float* x, int64_t n) {
    uint32_t largest = 0;
    for (int64_t i = 0; i < n; ++i) largest = std::max(largest, float_bits(x[i]) & 0x7fffffff);
    return largest;
}

constexpr uint32_t kInfinity = 0x7f800000;
// Magnitudes from here on round to infinity in bf16.
constexpr uint32_t kBeyondBf16 = 0x7f7f8000;

// --- encode one row as words: 32 bits for each step of its panel (matrix.h). x has room up to round_up(n, kGroup).
// --- Return false if a number is not finite.

bool encode_f32(const float* x, int64_t n, uint32_t* words) {
    std::memcpy(words, x, n * sizeof(float));
    return largest_bits(x, n) < kInfinity;
}

bool encode_bf16(float* x, int64_t n, uint32_t* words) {
    const int64_t n_words = ceil_div(n, 2);
    std::fill(x + n, x + 2 * n_words, 0.0f);
    for (int64_t s = 0; s < n_words; ++s)
        words[s] = uint32_t(to_bf16(x[2 * s])) | uint32_t(to_bf16(x[2 * s + 1])) << 16;
    return largest_bits(x, n) < kBeyondBf16;
}

// The stored scale of one group, and the divisor of its numbers: infinity for a scale of zero, so they become zero.
struct GroupScale {
    uint16_t stored;
    float divisor;

    explicit GroupScale(float scale) : stored(to_bf16(scale)), divisor(from_bf16(stored)) {
        if (divisor == 0) divisor = INFINITY;
    }
};

// scales[16 g] is the scale of group g, here and in encode_int4.
bool encode_int8(float* x, int64_t n, uint32_t* words, uint16_t* scales) {
    std::fill(x + n, x + round_up(n, kGroup), 0.0f);
    if (largest_bits(x, n) >= kBeyondBf16) return false;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(words);
    for (int64_t g = 0; g < ceil_div(n, kGroup); ++g, x += kGroup, bytes += kGroup) {
        const GroupScale scale(bits_float(largest_bits(x, kGroup)) / 127);
        scales[g * kPanelRows] = scale.stored;
        for (int64_t i = 0; i < kGroup; ++i)
            bytes[i] = uint8_t(round_to_int(clamp(x[i] / scale.divisor, -127, 127)) + 128);
    }
    return true;
}

bool encode_int4(float* x, int64_t n, uint32_t* words, uint16_t* scales) {
    std::fill(x + n, x + round_up(n, kGroup), 0.0f);
    if (largest_bits(x, n) >= kBeyondBf16) return false;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(words);
    for (int64_t g = 0; g < ceil_div(n, kGroup); ++g, x += kGroup, bytes += kGroup / 2) {
        float most = 0;
        for (int64_t i = 0; i < kGroup; ++i) most = std::fabs(x[i]) > std::fabs(most) ? x[i] : most;
        const GroupScale scale(most / -8);
        scales[g * kPanelRows] = scale.stored;
        int32_t q[kGroup];
        for (int64_t i = 0; i < kGroup; ++i) q[i] = round_to_int(clamp(x[i] / scale.divisor, -8, 7)) + 8;
        for (int64_t i = 0; i < kGroup / 2; ++i) bytes[i] = uint8_t(q[i] | q[kGroup / 2 + i] << 4);
    }
    return true;
}

// Packs panels one after the other, reusing its buffers.
class PanelPacker {
  public:
    PanelPacker(const Source& source, Format format)
        : source_(source),
          format_(format),
          front_(is_quantized(format) ? scale_bytes(source.cols) : 0),
          n_words_((panel_bytes(format, source.cols) - front_) / 4 / kPanelRows),
          // Rows a power of two apart would map to the same few cache sets.
          stride_(n_words_ + 16),
          row_(round_up(source.cols, kGroup)),
          words_(kPanelRows * stride_),
          group_scales_(front_ / 2) {}

    bool pack(int64_t panel, uint8_t* to) {
        for (int64_t r = 0; r < kPanelRows; ++r)
            if (!encode(panel * kPanelRows + r, words_.data() + r * stride_, group_scales_.data() + r)) return false;
        if (front_) std::memcpy(to, group_scales_.data(), size_t(front_));
        for (int64_t s = 0; s < n_words_; ++s) {
            uint32_t step[kPanelRows];
            for (int64_t r = 0; r < kPanelRows; ++r) step[r] = words_[r * stride_ + s];
            std::memcpy(to + front_ + s * kStepBytes, step, kStepBytes);
        }
        return true;
    }

  private:
    bool encode(int64_t row, uint32_t* words, uint16_t* scales) {
        float* x = row_.data();
        const int64_t n = source_.cols;
        if (row < source_.rows)
            load_numbers(source_, row * n, n, x);
        else
            std::fill(x, x + n, 0.0f);
        if (format_ == Format::bf16) return encode_bf16(x, n, words);
        if (format_ == Format::int8) return encode_int8(x, n, words, scales);
        if (format_ == Format::int4) return encode_int4(x, n, words, scales);
        return encode_f32(x, n, words);
    }

    const Source source_;
    const Format format_;
    const int64_t front_, n_words_, stride_;
    std::vector<float> row_;
    std::vector<uint32_t> words_;
    std::vector<uint16_t> group_scales_;
};

// Call work(first, last) for pieces of 0 .. n - 1, each thread taking the next free one; returns whether all were true.
template <typename Work>
bool share(int64_t n, int64_t piece, int threads, const Work& work) {
    std::atomic<int64_t> next{0};
    std::atomic<bool> good{true};
    std::mutex guard;
    std::exception_ptr failure;
    const auto run = [&] {
        try {
            for (int64_t i; good && (i = next.fetch_add(piece)) < n;)
                if (!work(i, std::min(i + piece, n))) good = false;
        } catch (...) {
            good = false;
            const std::lock_guard<std::mutex> lock(guard);
            failure = std::current_exception();
        }
    };
    std::vector<std::thread> helpers;
    try {
        for (int64_t i = 1; i < std::min<int64_t>(threads, ceil_div(n, piece)); ++i) helpers.emplace_back(run);
    } catch (const std::exception&) {
        // The threads that did start do the work, at least this one.
    }
    run();
    for (std::thread& helper : helpers) helper.join();
    if (failure) std::rethrow_exception(failure);
    return good;
}

constexpr int64_t kPanelsAtOnce = 4, kTableNumbersAtOnce = 1 << 16, kNumbersAtOnce = 1 << 10;

}  // namespace

bool pack_matrix(const Source& source, Format format, void* panels, int threads) {
    const int64_t bytes = panel_bytes(format, source.cols);
    return share(panel_count(source.rows), kPanelsAtOnce, threads, [&](int64_t first, int64_t last) {
        PanelPacker packer(source, format);
        for (int64_t panel = first; panel < last; ++panel)
            if (!packer.pack(panel, static_cast<uint8_t*>(panels) + panel * bytes)) return false;
        return true;
    });
}

bool pack_table(const Source& source, Format format, void* table, int threads) {
    const int64_t total = source.rows * source.cols;
    return share(total, kTableNumbersAtOnce, threads, [&](int64_t first, int64_t last) {
        float x[kNumbersAtOnce];
        for (int64_t i = first; i < last; i += kNumbersAtOnce) {
            const int64_t n = std::min(kNumbersAtOnce, last - i);
            load_numbers(source, i, n, x);
            if (largest_bits(x, n) >= (format == Format::bf16 ? kBeyondBf16 : kInfinity)) return false;
            if (format == Format::bf16)
                for (int64_t j = 0; j < n; ++j) static_cast<uint16_t*>(table)[i + j] = to_bf16(x[j]);
            else
                std::memcpy(static_cast<float*>(table) + i, x, n * sizeof(float));
        }
        return true;
    });
}

bool pack_vector(const Source& source, float* vector) {
    const int64_t n = source.rows * source.cols;
    load_numbers(source, 0, n, vector);
    std::fill(vector + n, vector + round_up(n, kPanelRows), 0.0f);
    return largest_bits(vector, n) < kInfinity;
}

void unpack_matrix(const Matrix& matrix, float* numbers) {
    for (int64_t row = 0; row < matrix.rows; ++row) {
        const uint8_t* panel = matrix.panels + row / kPanelRows * matrix.panel_stride;
        const int64_t lane = row % kPanelRows;
        for (int64_t col = 0; col < matrix.cols; ++col) {
            float& number = numbers[row * matrix.cols + col];
            if (matrix.format == Format::f32) {
                std::memcpy(&number, panel + col * kStepBytes + lane * 4, sizeof number);
            } else if (matrix.format == Format::bf16) {
                uint16_t half;
                std::memcpy(&half, panel + col / 2 * kStepBytes + lane * 4 + col % 2 * 2, sizeof half);
                number = from_bf16(half);
            } else {
                const int64_t group = col / kGroup, place = col % kGroup;
                const bool wide = matrix.format == Format::int8;
                const uint8_t* step = panel + scale_bytes(matrix.cols) + group * group_bytes(matrix.format) +
                                      (wide ? place : place % 16) / 4 * kStepBytes;
                const int32_t byte = step[lane * 4 + place % 4];
                uint16_t scale;
                std::memcpy(&scale, panel + (group * kPanelRows + lane) * 2, sizeof scale);
                number = float(wide ? byte - 128 : (byte >> (place / 16 * 4) & 15) - 8) * from_bf16(scale);
            }
        }
    }
}

}  // namespace barkfast
