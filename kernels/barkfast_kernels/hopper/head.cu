// The end of a decode step: final layer norm, logits of the candidates, sampling, and the embedding of the token.
//
// A block handles the same columns of every slice and requests their weights before it waits: one wave of blocks holds
// the whole head in shared memory, whichever slice a row draws from. Each block stores its best candidate, and the last
// block to arrive draws from these. They are stored by block and merged in a fixed order, so that neither the order of
// arrival nor the batch changes a bit.

// Summary of some of a row's candidates.
struct alignas(16) Found {
    // The largest of logit / temperature + noise, and the lowest column that has it.
    float score;
    int column;
    // The largest of logit / temperature, and the sum of exp(logit / temperature - largest).
    float largest, total;
};

// The column of a logit that is not finite; its score is infinite, so it wins over all others.
constexpr int BROKEN = -1;
constexpr int NO_COLUMN = 0x7fffffff;
// Pieces in which a block's rows are copied, at most.
constexpr int HEAD_PIECES = MOST_HEAD_ROWS / ROWS_AT_ONCE;
// The lowest finite float32, the maximum of no values: differences between two of them are not NaN.
#define LOWEST -3.4028234663852886e38f

__device__ __forceinline__ void keep_better(Found& a, float score, int column) {
    // No && and ||: each would be a branch.
    bool better = (score > a.score) | ((score == a.score) & (column < a.column));
    a.score = better ? score : a.score;
    a.column = better ? column : a.column;
}

template <int N>
__device__ __forceinline__ Found merge(const Found (&parts)[N]) {
    Found a = parts[0];
#pragma unroll
    for (int i = 1; i < N; i++) {
        keep_better(a, parts[i].score, parts[i].column);
        a.largest = fmaxf(a.largest, parts[i].largest);
    }
    if (N > 1) a.total *= expf(parts[0].largest - a.largest);
#pragma unroll
    for (int i = 1; i < N; i++) a.total += parts[i].total * expf(parts[i].largest - a.largest);
    return a;
}

// Merge over all lanes of the warp; every lane gets the result.
__device__ __forceinline__ void merge_lanes(Found& a) {
    float top = a.largest;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        keep_better(a, __shfl_xor_sync(~0u, a.score, step), __shfl_xor_sync(~0u, a.column, step));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    }
    a.total *= expf(a.largest - top);
    a.largest = top;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) a.total += __shfl_xor_sync(~0u, a.total, step);
}

// value / temperature; the value itself for a temperature of 0 (greedy). Below 1e-30 the quotient would overflow.
__device__ __forceinline__ float temper(float value, float temperature) {
    return __fdiv_rn(value, temperature == 0 ? 1.0f : fmaxf(temperature, 1e-30f));
}

// Request rows `start` to `start` + ROWS_AT_ONCE of the block's `own` rows of each slice, fewer where the slice ends.
// The stop token's row follows the slice's last row.
__device__ __forceinline__ void ask_for_rows(Copies& copies, const Storage* weight, const int* slices, int n_slices,
                                             int stop_row, int own, int start) {
    int from = blockIdx.x * own + start, most = min(ROWS_AT_ONCE, own - start), rows = 0;
#pragma unroll 1
    for (int s = 0; s < n_slices; s++) rows += min(max(slices[2 * s + 1] + (stop_row >= 0) - from, 0), most);
    copies.expect(rows * EMBD * sizeof(Storage));
    Storage* tile = reinterpret_cast<Storage*>(dynamic) + start * EMBD;
#pragma unroll 1
    for (int s = 0; s < n_slices; s++, tile += own * EMBD) {
        int left = slices[2 * s + 1] - from, count = min(max(left, 0), most);
        u64 first = slices[2 * s] + from;
        copies.add(tile, weight + first * EMBD, count * EMBD * sizeof(Storage));
        if (stop_row >= 0 && left >= 0 && left < most)
            copies.add(tile + left * EMBD, weight + static_cast<u64>(stop_row) * EMBD, EMBD * sizeof(Storage));
    }
}

// Each warp's part of the products of `own` rows with a vector; rows are multiplied while the next are being copied.
__device__ __forceinline__ void multiply_head(Copies (&copies)[HEAD_PIECES], const Storage* tile, int own,
                                              const Vector<4>& h, float (&sums)[WARPS][MOST_HEAD_ROWS]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
    for (int piece = 0; piece * ROWS_AT_ONCE < own; piece++) {
        // The last piece has as many rows as the others, so some are computed again, with the same bits. If `own` is
        // smaller than a piece, the memory after the rows is multiplied too, but not used.
        int first = max(min(piece * ROWS_AT_ONCE, own - ROWS_AT_ONCE), 0);
        copies[piece].wait();
        float products[ROWS_AT_ONCE];
#pragma unroll
        for (int r = 0; r < ROWS_AT_ONCE; r++) {
            Vector<4> w = load4(tile + (first + r) * EMBD + 4 * threadIdx.x);
            products[r] = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) products[r] = fmaf(w.at[i], h.at[i], products[r]);
        }
        float sum = add_lanes<ROWS_AT_ONCE>(products, lane);
        if (lane < ROWS_AT_ONCE) sums[warp][first + lane] = sum;
    }
}

// State of a row's slot, equal in all threads of a block.
struct Drawer {
    bool running, has_stop;
    int drawn, slice, first, width;
    float temperature;

    __device__ __forceinline__ Drawer(int slot, const int (&words)[WORDS], const int (&table)[MOST_SLICES][2],
                                      int n_slices, int stop_row) {
        // Another kernel draws for rows with a filter.
        bool filtered = words[TOP_K] > 0 || __int_as_float(words[TOP_P_F]) <= 1;
        running = slot >= 0 && words[STATUS] == RUNNING && !filtered;
        has_stop = stop_row >= 0 && words[HAS_STOP];
        drawn = words[DRAWN];
        slice = (words[PHASE] + drawn) % n_slices;
        first = table[slice][0], width = table[slice][1];
        temperature = __int_as_float(words[TEMPERATURE_F]);
    }
};

// At most 64 registers per thread (80 in float32), so that blocks of the previous and the next kernel fit beside it.
extern "C" __global__ void __launch_bounds__(THREADS, (sizeof(Storage) == 2 ? 1024 : 768) / THREADS)
    head_draw(float* x, const Storage* gains, const Storage* offsets, const Storage* weight, const int* slices,
              int stop_row, float* logits, int* tokens, const Storage* wte, const Storage* wpe, const int* rows,
              int* slots, Found* found, u32* arrived, int n_slices, int n_candidates, int own, int stage, int batch,
              const char* ahead, u32 ahead_bytes) {
    if (TRIGGER_FIRST) launch_next();
    // Candidates per thread, and the number of warps that have any.
    constexpr int EACH = (MOST_HEAD_ROWS + THREADS - 1) / THREADS;
    constexpr int FINDERS = EACH > 1 ? WARPS : MOST_HEAD_ROWS / 32;
    // Words of slots per thread.
    constexpr int TURNS = (MOST_BATCH * WORDS + THREADS - 1) / THREADS;
    __shared__ Copies copies[HEAD_PIECES];
    __shared__ int listed[MOST_BATCH], words[MOST_BATCH][WORDS], table[MOST_SLICES][2], moved[MOST_BATCH];
    __shared__ float2 moments[WARPS];
    __shared__ float sums[WARPS][MOST_HEAD_ROWS];
    __shared__ Found by_warp[FINDERS];
    __shared__ bool last;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = 4 * threadIdx.x, from = blockIdx.x * own;
    // Rows and slices are constant: they may be read before the wait.
    if (threadIdx.x * ROWS_AT_ONCE < own)
        ask_for_rows(copies[threadIdx.x], weight, slices, n_slices, stop_row, own, threadIdx.x * ROWS_AT_ONCE);
    if (threadIdx.x < batch) listed[threadIdx.x] = rows[threadIdx.x];
    if (threadIdx.x < 2 * n_slices) table[threadIdx.x / 2][threadIdx.x % 2] = slices[threadIdx.x];
    Vector<4> gain = load4(gains + channel), offset = {};
    if (offsets) offset = load4(offsets + channel);
    __syncthreads();
    const float* token_at = x + max(listed[0], 0) * EMBD;
    const int* words_at[TURNS];
#pragma unroll
    for (int t = 0; t < TURNS; t++) {
        int i = min(t * THREADS + threadIdx.x, batch * WORDS - 1);
        words_at[t] = slots + max(listed[i / WORDS], 0) * WORDS + i % WORDS;
    }
    Ahead{ahead, ahead_bytes}.prefetch();
    if (!TRIGGER_FIRST) launch_next();
    wait_for_last();

    // Load the first row's vector and all rows' words in one round trip.
    Token token(token_at);
    int fetched[TURNS];
#pragma unroll
    for (int t = 0; t < TURNS; t++) fetched[t] = fresh(words_at[t]);
#pragma unroll
    for (int t = 0; t < TURNS; t++) {
        int i = t * THREADS + threadIdx.x;
        if (i < batch * WORDS) words[i / WORDS][i % WORDS] = fetched[t];
    }
#pragma unroll 1
    for (int b = 0; b < batch; b++) {
        // After this, the words are in shared memory, and no thread still reads shared results of the previous row.
        __syncthreads();
        Drawer drawer(listed[b], words[b], table, n_slices, stop_row);
        Vector<4> h = normalize(token.own, token.shift(), gain, offset, moments);
        if (b + 1 < batch) token = Token(x + max(listed[b + 1], 0) * EMBD);
        multiply_head(copies, reinterpret_cast<const Storage*>(dynamic) + drawer.slice * own * EMBD, own, h, sums);
        // The noise needs no product, so warps that have candidates can compute it while others still multiply.
        float noise[EACH] = {};
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int r = e * THREADS + threadIdx.x, column = from + r;
            if (r >= own || drawer.temperature == 0) continue;
            noise[e] = gumbel_of_word(philox_word(column < drawer.width ? drawer.first + column : stop_row,
                                                  words[b][FIRST_DRAW] + drawer.drawn, stage, words[b][SEED_LOW],
                                                  words[b][SEED_HIGH]));
        }
        __syncthreads();
        Found each[EACH];
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int r = e * THREADS + threadIdx.x, column = from + r;
            each[e] = {-INFINITE, NO_COLUMN, LOWEST, 0};
            if (r >= own || column >= drawer.width + (stop_row >= 0)) continue;
            float value = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++) value += sums[w][r];
            // A row that is not running is computed like the others, so that no load depends on its status.
            if (drawer.running) logits[b * n_candidates + column] = value;
            if (column == drawer.width && !drawer.has_stop) continue;
            float tempered = temper(value, drawer.temperature);
            if (fabsf(value) < INFINITE)
                each[e] = {tempered + noise[e], column, fmaxf(tempered, LOWEST), 1};
            else
                each[e] = {INFINITE, BROKEN, LOWEST, 0};
        }
        if (warp < FINDERS) {
            Found best = merge(each);
            merge_lanes(best);
            if (lane == 0) by_warp[warp] = best;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            Found best = merge(by_warp);
            found[b * gridDim.x + blockIdx.x] = best;
            // One of the blocks' best candidates is the token whose embedding is needed soon.
            if (drawer.running && best.column >= 0 && best.column < drawer.width)
                prefetch(wte + static_cast<u64>(drawer.first + best.column) * EMBD, EMBD * sizeof(Storage));
            if (drawer.running && blockIdx.x == 0)
                prefetch(wpe + min(words[b][POSITION] + 1, POSITIONS - 1) * EMBD, EMBD * sizeof(Storage));
        }
    }

    // This block wrote its logits before the barriers above, and thread 0 wrote `found`: a block that sees its arrival
    // sees both. It has also read all it needs of x and slots, so the last block may overwrite them.
    if (threadIdx.x == 0) last = arrive(arrived) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    // All blocks have arrived. The next launch sees this reset after its wait, like every other result.
    if (threadIdx.x == 0) *arrived = 0;

#pragma unroll 1
    for (int b = warp; b < batch; b += WARPS) {
        constexpr int PARTS = (MOST_BLOCKS + 31) / 32;
        Drawer drawer(listed[b], words[b], table, n_slices, stop_row);
        int slot = max(listed[b], 0), drawn = drawer.drawn, position = words[b][POSITION], blocks = gridDim.x;
        // All loads in one round trip: whether a value is used is decided later.
        Found parts[PARTS];
#pragma unroll
        for (int i = 0; i < PARTS; i++) {
            int block = 32 * i + lane;
            float4 raw = fresh4(reinterpret_cast<const float*>(found + b * blocks + min(block, blocks - 1)));
            // Lanes beyond the last block load its part again: this would change nothing but the sum.
            parts[i] = {raw.x, __float_as_int(raw.y), raw.z, block < blocks ? raw.w : 0};
        }
        int* place = tokens + static_cast<u64>(slot) * POSITIONS + min(drawn, POSITIONS - 1);
        int token = fresh(place);
        float stop_value = fresh(logits + b * n_candidates + min(drawer.width, n_candidates - 1));
        Found best = merge(parts);
        merge_lanes(best);

        bool sound = drawer.running && best.column != BROKEN;
        bool chosen = drawer.has_stop && best.column == drawer.width;
        float min_p = __int_as_float(words[b][MIN_P_F]), chance = chosen;
        if (drawer.temperature != 0)
            chance = __fdiv_rn(expf(temper(stop_value, drawer.temperature) - best.largest), best.total);
        bool forced = drawn < words[b][FORCED], likely = drawer.has_stop && min_p <= 1 && chance >= min_p;
        bool ended = !forced && (chosen || likely);
        if (!forced) token = ended ? stop_row : drawer.first + best.column;
        if (lane == 0) {
            int* own_words = slots + slot * WORDS;
            if (drawer.running) {
                int after = ended ? STOPPED : drawn + 1 >= words[b][LIMIT] ? FINISHED : RUNNING;
                own_words[STATUS] = sound ? after : FAILED;
            }
            if (sound) {
                own_words[DRAWN] = drawn + 1;
                own_words[POSITION] = position + 1;
                if (drawn < POSITIONS) *place = token;
            }
            moved[b] = sound && !ended && position + 1 < POSITIONS ? token : -1;
        }
    }
    __syncthreads();
#pragma unroll 1
    for (int b = 0; b < batch; b++) {
        if (moved[b] < 0) continue;
        Vector<4> what = load4(wte + static_cast<u64>(moved[b]) * EMBD + channel);
        Vector<4> where = load4(wpe + (words[b][POSITION] + 1) * EMBD + channel);
        float4 sum = {what.at[0] + where.at[0], what.at[1] + where.at[1], what.at[2] + where.at[2],
                      what.at[3] + where.at[3]};
        *reinterpret_cast<float4*>(x + listed[b] * EMBD + channel) = sum;
    }
}
