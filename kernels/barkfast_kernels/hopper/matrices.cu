// The four matrix products of a transformer layer with the operations around them, for one new token per sequence.
//
// A block keeps its rows of a matrix in shared memory. It requests all of them from the copy engine before it waits for
// the previous kernel. There is about one block per multiprocessor, so that blocks of several kernels fit on it and
// memory is never idle. Thread t of a block holds channels 4 t to 4 t + 3 of the vector in registers. Every sum has the
// same order for any batch.

// Until one value per lane is left: halve the values per lane, and double the lanes that each is a sum of.
template <int HALF, int P>
__device__ __forceinline__ void exchange(float (&values)[P], int lane) {
    if constexpr (HALF > 0) {
        bool upper = lane & HALF;
#pragma unroll
        for (int i = 0; i < HALF; i++) {
            float give = upper ? values[i] : values[i + HALF], keep = upper ? values[i + HALF] : values[i];
            values[i] = keep + __shfl_xor_sync(~0u, give, HALF);
        }
        exchange<HALF / 2>(values, lane);
    }
}

// Sum each of the lanes' `P` values over groups of `LANES` adjacent lanes; lane l gets the sum of value l % P.
template <int P, int LANES = 32>
__device__ __forceinline__ float add_lanes(float (&values)[P], int lane) {
    exchange<P / 2>(values, lane);
    float sum = values[0];
#pragma unroll
    for (int step = P; step < LANES; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
    return sum;
}

__device__ constexpr int power_of_2(int n) { return n <= 1 ? 1 : 2 * power_of_2((n + 1) / 2); }

// Dot products of the tile's ROWS rows, EMBD * CHUNKS wide, with a vector; thread r < ROWS gets that of row r.
template <int ROWS, int CHUNKS>
__device__ __forceinline__ float multiply(const Weight* tile, const Vector<4> (&h)[CHUNKS], float (&sums)[WARPS][32]) {
    constexpr int P = power_of_2(ROWS);
    static_assert(P <= 32, "a lane per row");
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float products[P];
#pragma unroll
    for (int r = 0; r < P; r++) {
        products[r] = 0;
        if (r < ROWS) {
#pragma unroll
            for (int c = 0; c < CHUNKS; c++) {
                Vector<4> w = load4(tile + (r * CHUNKS + c) * EMBD + 4 * threadIdx.x);
#pragma unroll
                for (int i = 0; i < 4; i++) products[r] = fmaf(w.at[i], h[c].at[i], products[r]);
            }
        }
    }
    float sum = add_lanes<P>(products, lane);
    if (lane < P) sums[warp][lane] = sum;
    __syncthreads();
    float total = 0;
    if (threadIdx.x < ROWS) {
#pragma unroll
        for (int w = 0; w < WARPS; w++) total += sums[w][threadIdx.x];
    }
    return total;
}

// Layer norm of one row by the block, in one pass: sums of the differences from `shift`, and of their squares.
//
// The variance loses precision by the square of the difference between mean and shift. With the mean of four channels
// as shift it is at most 256 times the variance (if these four hold all of it), and mostly less than the variance.
__device__ __forceinline__ Vector<4> normalize(const Vector<4>& x, float shift, const Vector<4>& gain,
                                               const Vector<4>& offset, float2 (&moments)[WARPS]) {
    float sum = 0, squares = 0;
    Vector<4> distance;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        distance.at[i] = x.at[i] - shift;
        sum += distance.at[i];
        squares = fmaf(distance.at[i], distance.at[i], squares);
    }
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        sum += __shfl_xor_sync(~0u, sum, step);
        squares += __shfl_xor_sync(~0u, squares, step);
    }
    if (threadIdx.x % 32 == 0) moments[threadIdx.x / 32] = make_float2(sum, squares);
    __syncthreads();
    sum = 0, squares = 0;
#pragma unroll
    for (int w = 0; w < WARPS; w++) {
        sum += moments[w].x;
        squares += moments[w].y;
    }
    float mean = sum * (1.0f / EMBD), scale = rsqrtf(fmaxf(squares * (1.0f / EMBD) - mean * mean, 0.0f) + 1e-5f);
    Vector<4> y;
#pragma unroll
    for (int i = 0; i < 4; i++) y.at[i] = fmaf((distance.at[i] - mean) * scale, gain.at[i], offset.at[i]);
    return y;
}

// A row of x: the thread's channels, and the row's first four.
struct Token {
    Vector<4> own, first;

    __device__ __forceinline__ explicit Token(const float* x) : own(take4(x + 4 * threadIdx.x)), first(take4(x)) {}
    __device__ __forceinline__ float shift() const {
        return 0.25f * ((first.at[0] + first.at[1]) + (first.at[2] + first.at[3]));
    }
};

__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.7071067811865476f)); }

// A block's part of a matrix: rows first to first + count, in shared memory, with their scales and biases.
template <int ROWS, int COLUMNS>
struct Part {
    int first, count;
    float scale, bias;

    __device__ __forceinline__ Part(int rows, char* tile, Copies& copies, const Weight* weight, const float* scales,
                                    const Storage* biases) {
        first = blockIdx.x * ROWS;
        count = min(ROWS, rows - first);
        if (threadIdx.x == 0) {
            u32 bytes = count * COLUMNS * sizeof(Weight);
            copies.expect(bytes);
            copies.add(tile, weight + static_cast<u64>(first) * COLUMNS, bytes);
        }
        scale = 1, bias = 0;
        if (threadIdx.x < count) {
            if (scales) scale = scales[first + threadIdx.x];
            if (biases) bias = read(biases + first + threadIdx.x);
        }
    }

    static __device__ __forceinline__ float read(const float* p) { return *p; }
    template <class T>
    static __device__ __forceinline__ float read(const T* p) {
        float low, high;
        unpack(p->bits, low, high, T());
        return low;
    }
};

// Multiply the block's part of a matrix with `n_out` rows by one vector for each running row of the batch.
//
// fetch(b, slot, n): only load what row b needs of other kernels' results; n is the thread's row of the matrix, or -1.
// prepare(fetched, h): compute this thread's channels of the vector. store(b, row, n, fetched, y): store result n.
template <int ROWS, int CHUNKS, class Fetch, class Prepare, class Store>
__device__ __forceinline__ void multiply_rows(int n_out, const Weight* weight, const float* scales,
                                              const Storage* biases, const int* rows, const int* slots, int batch,
                                              Ahead ahead, Fetch fetch, Prepare prepare, Store store) {
    __shared__ Copies copies;
    __shared__ float sums[WARPS][32];
    Part<ROWS, CHUNKS * EMBD> part(n_out, dynamic, copies, weight, scales, biases);
    const Weight* tile = reinterpret_cast<const Weight*>(dynamic);
    int n = threadIdx.x < part.count ? part.first + static_cast<int>(threadIdx.x) : -1;
    int listed = listed_slot(rows, 0);
    ahead.prefetch();
    if (!TRIGGER_FIRST) launch_next();
    __syncthreads();
    wait_for_last();
    for (int b = 0; b < batch; b++) {
        if (b) {
            listed = listed_slot(rows, b);
            __syncthreads();
        }
        // Only stores depend on whether the row is running: a branch here would cost a second trip to the cache.
        Row row(listed, slots);
        auto fetched = fetch(b, max(listed, 0), n);
        if (!ONE_TRIP && !row.running()) continue;
        Vector<4> h[CHUNKS] = {};
        prepare(fetched, h);
        copies.wait();
        float y = multiply<ROWS>(tile, h, sums) * part.scale + part.bias;
        if (row.running() && n >= 0) store(b, row, n, fetched, y);
    }
    copies.wait();
}

// The same, where the vector is the layer norm of each row's x.
template <int ROWS, class Store>
__device__ __forceinline__ void multiply_normed(int n_out, const float* x, const Storage* gains, const Storage* offsets,
                                                const Weight* weight, const float* scales, const Storage* biases,
                                                const int* rows, const int* slots, int batch, Ahead ahead,
                                                Store store) {
    __shared__ float2 moments[WARPS];
    Vector<4> gain = load4(gains + 4 * threadIdx.x), offset = {};
    if (offsets) offset = load4(offsets + 4 * threadIdx.x);
    multiply_rows<ROWS, 1>(
        n_out, weight, scales, biases, rows, slots, batch, ahead,
        [&](int b, int slot, int n) { return Token(x + slot * EMBD); },
        [&](const Token& token, Vector<4>(&h)[1]) {
            h[0] = normalize(token.own, token.shift(), gain, offset, moments);
        },
        [&](int b, const Row& row, int n, const Token& token, float y) { store(b, row, n, y); });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    norm_qkv(const float* x, const Storage* gains, const Storage* offsets, const Weight* weight, const float* scales,
             const Storage* biases, float* q, Storage* newest, Storage* keys, Storage* values, const int* rows,
             const int* slots, int batch, const char* ahead, u32 ahead_bytes) {
    if (TRIGGER_FIRST) launch_next();
    multiply_normed<QKV_ROWS>(3 * EMBD, x, gains, offsets, weight, scales, biases, rows, slots, batch,
                              {ahead, ahead_bytes}, [&](int b, const Row& row, int n, float y) {
                                  int channel = n % EMBD;
                                  u64 head = static_cast<u64>(row.slot) * HEADS + channel / HEAD_DIM;
                                  u64 cached = (head * POSITIONS + row.position) * HEAD_DIM + channel % HEAD_DIM;
                                  if (n < EMBD) {
                                      q[b * EMBD + channel] = y;
                                  } else {
                                      store(newest + (2 * b - 1) * EMBD + n, y);
                                      if (row.position < POSITIONS) store((n < 2 * EMBD ? keys : values) + cached, y);
                                  }
                              });
}

extern "C" __global__ void __launch_bounds__(THREADS)
    norm_fc_gelu(const float* x, const Storage* gains, const Storage* offsets, const Weight* weight,
                 const float* scales, const Storage* biases, Storage* hidden, const int* rows, const int* slots,
                 int batch, const char* ahead, u32 ahead_bytes) {
    if (TRIGGER_FIRST) launch_next();
    multiply_normed<FC_ROWS>(4 * EMBD, x, gains, offsets, weight, scales, biases, rows, slots, batch,
                             {ahead, ahead_bytes},
                             [&](int b, const Row& row, int n, float y) { store(hidden + b * 4 * EMBD + n, gelu(y)); });
}

// A channel of x, and its value before the addition.
struct Residual {
    float* target;
    float value;

    __device__ __forceinline__ Residual(float* x, int slot, int n) : target(x + slot * EMBD + max(n, 0)) {
        value = fresh(target);
    }
    __device__ __forceinline__ void add(float y) const { *target = value + y; }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    proj_residual(float* x, const Storage* hidden, const Weight* weight, const float* scales, const Storage* biases,
                  const int* rows, const int* slots, int batch, const char* ahead, u32 ahead_bytes) {
    if (TRIGGER_FIRST) launch_next();
    struct Fetched {
        Vector<4> h[4];
        Residual residual;
    };
    multiply_rows<OUT_ROWS, 4>(
        EMBD, weight, scales, biases, rows, slots, batch, {ahead, ahead_bytes},
        [&](int b, int slot, int n) {
            const Storage* own = hidden + b * 4 * EMBD + 4 * threadIdx.x;
            return Fetched{{take4(own), take4(own + EMBD), take4(own + 2 * EMBD), take4(own + 3 * EMBD)},
                           Residual(x, slot, n)};
        },
        [&](const Fetched& fetched, Vector<4>(&h)[4]) {
#pragma unroll
            for (int c = 0; c < 4; c++) h[c] = fetched.h[c];
        },
        [&](int b, const Row& row, int n, const Fetched& fetched, float y) { fetched.residual.add(y); });
}

// The attention splits of a head: weighted sums of the values, and stats (largest score, sum of weights).
struct Attended {
    Vector<4> sum[SPLITS];
    float2 stat[SPLITS];
    Residual residual;

    __device__ __forceinline__ Attended(const float* partial, const float* stats, int b, const Residual& residual_)
        : residual(residual_) {
        int channel = 4 * threadIdx.x, head = (b * HEADS + channel / HEAD_DIM) * SPLITS;
#pragma unroll
        for (int s = 0; s < SPLITS; s++) {
            sum[s] = take4(partial + (head + s) * HEAD_DIM + channel % HEAD_DIM);
            uint2 raw = fresh2(stats + (head + s) * 2);
            stat[s] = make_float2(__uint_as_float(raw.x), __uint_as_float(raw.y));
        }
    }

    __device__ __forceinline__ Vector<4> combine() const {
        // The first position always takes part, so the largest score is finite.
        float top = stat[0].x, total = 0;
#pragma unroll
        for (int s = 1; s < SPLITS; s++) top = fmaxf(top, stat[s].x);
        Vector<4> out = {};
#pragma unroll
        for (int s = 0; s < SPLITS; s++) {
            float share = power_of_two(stat[s].x - top);
            total = fmaf(share, stat[s].y, total);
#pragma unroll
            for (int i = 0; i < 4; i++) out.at[i] = fmaf(share, sum[s].at[i], out.at[i]);
        }
        float inverse = reciprocal(total);
#pragma unroll
        for (int i = 0; i < 4; i++) out.at[i] *= inverse;
        return out;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_out(float* x, const float* partial, const float* stats, const Weight* weight, const float* scales,
                  const Storage* biases, const int* rows, const int* slots, int batch, const char* ahead,
                  u32 ahead_bytes) {
    if (TRIGGER_FIRST) launch_next();
    multiply_rows<OUT_ROWS, 1>(
        EMBD, weight, scales, biases, rows, slots, batch, {ahead, ahead_bytes},
        [&](int b, int slot, int n) { return Attended(partial, stats, b, Residual(x, slot, n)); },
        [&](const Attended& attended, Vector<4>(&h)[1]) { h[0] = attended.combine(); },
        [&](int b, const Row& row, int n, const Attended& attended, float y) { attended.residual.add(y); });
}
