// The end of a decode step: final layer norm, logits of the candidates, the draw, and the embedding of the token.
//
// A block takes the same columns of every slice, and asks for their weights before it waits: one wave of blocks holds
// the whole head in shared memory, whichever slice a row will draw from. Each block leaves the best of its candidates,
// and the last to arrive draws from those. They lie by block and are put together in one order, so that neither the
// order of arrival nor the batch changes a bit.

// What is known of some of a row's candidates.
struct alignas(16) Found {
    // The largest of logit / temperature + noise, and the lowest column that has it.
    float score;
    int column;
    // The largest of logit / temperature, and the sum of exp(logit / temperature - largest).
    float largest, total;
};

// A logit that is not finite: its column, with an infinite score, so that it wins over all others.
constexpr int BROKEN = -1;
constexpr int NO_COLUMN = 0x7fffffff;

__device__ __forceinline__ Found nothing_found() { return {-INFINITE, NO_COLUMN, -INFINITE, 0}; }

__device__ __forceinline__ void keep_better(Found& a, float score, int column) {
    if (score > a.score || (score == a.score && column < a.column)) a.score = score, a.column = column;
}

// What a sum for `largest` is worth in one for `top`; nothing has a sum of 0, whose -inf - -inf would be NaN.
__device__ __forceinline__ float share_of(float largest, float top) {
    return largest == -INFINITE ? 0 : expf(largest - top);
}

__device__ __forceinline__ void merge(Found& a, const Found& b) {
    keep_better(a, b.score, b.column);
    float top = fmaxf(a.largest, b.largest);
    a.total = a.total * share_of(a.largest, top) + b.total * share_of(b.largest, top);
    a.largest = top;
}

// Of all lanes of the warp, to each.
__device__ __forceinline__ void merge_lanes(Found& a) {
    float top = a.largest;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        keep_better(a, __shfl_xor_sync(~0u, a.score, step), __shfl_xor_sync(~0u, a.column, step));
        top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    }
    a.total *= share_of(a.largest, top);
    a.largest = top;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) a.total += __shfl_xor_sync(~0u, a.total, step);
}

// The logit itself for a temperature of 0, which is greedy; below 1e-30 the quotient would overflow.
__device__ __forceinline__ float temper(float value, float temperature) {
    return __fdiv_rn(value, temperature == 0 ? 1.0f : fmaxf(temperature, 1e-30f));
}

// Ask for the block's rows: `own` of each slice, less where the slice ends, the stop token's behind its last.
__device__ __forceinline__ void ask_for_rows(Copies& copies, const Storage* weight, const int* slices, int n_slices,
                                             int stop_row, int own) {
    int from = blockIdx.x * own, rows = 0;
    for (int s = 0; s < n_slices; s++) rows += min(max(slices[2 * s + 1] + (stop_row >= 0) - from, 0), own);
    copies.expect(rows * EMBD * sizeof(Storage));
    Storage* tile = reinterpret_cast<Storage*>(dynamic);
    for (int s = 0; s < n_slices; s++, tile += own * EMBD) {
        int left = slices[2 * s + 1] - from, count = min(max(left, 0), own);
        u64 first = slices[2 * s] + from;
        if (count) copies.add(tile, weight + first * EMBD, count * EMBD * sizeof(Storage));
        if (stop_row >= 0 && left >= 0 && left < own)
            copies.add(tile + left * EMBD, weight + static_cast<u64>(stop_row) * EMBD, EMBD * sizeof(Storage));
    }
}

// Each warp's part of the products of `own` rows with a vector; what lies behind them in memory is multiplied too, and
// not used.
__device__ __forceinline__ void multiply_head(const Storage* tile, int own, const Vector<4>& h,
                                              float (&sums)[WARPS][MOST_HEAD_ROWS]) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll 1
    for (int first = 0; first < own; first += ROWS_AT_ONCE) {
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

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS)
    head_draw(float* x, const Storage* gains, const Storage* offsets, const Storage* weight, const int* slices,
              int stop_row, float* logits, int* tokens, const Storage* wte, const Storage* wpe, const int* rows,
              int* slots, Found* found, u32* arrived, int n_slices, int n_candidates, int own, int stage, int batch) {
    launch_next();
    // Candidates of a thread, and the warps that have any.
    constexpr int EACH = (MOST_HEAD_ROWS + THREADS - 1) / THREADS, MOST = MOST_HEAD_ROWS / 32,
                  FINDERS = WARPS < MOST ? WARPS : MOST;
    __shared__ Copies copies;
    __shared__ int listed[MOST_BATCH], words[MOST_BATCH][WORDS], table[MOST_SLICES][2], moved[MOST_BATCH];
    __shared__ float2 moments[WARPS];
    __shared__ float sums[WARPS][MOST_HEAD_ROWS];
    __shared__ Found by_warp[FINDERS];
    __shared__ bool last;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, channel = 4 * threadIdx.x, from = blockIdx.x * own;
    // Rows and slices are constant: they may be read before the wait.
    if (threadIdx.x == 0) ask_for_rows(copies, weight, slices, n_slices, stop_row, own);
    if (threadIdx.x < batch) listed[threadIdx.x] = rows[threadIdx.x];
    if (threadIdx.x < 2 * n_slices) table[threadIdx.x / 2][threadIdx.x % 2] = slices[threadIdx.x];
    Vector<4> gain = load4(gains + channel), offset = {};
    if (offsets) offset = load4(offsets + channel);
    __syncthreads();
    wait_for_last();

    // The first row's vector and all rows' words, in one trip.
    Vector<4> token = take4(x + max(listed[0], 0) * EMBD + channel);
    for (int i = threadIdx.x; i < batch * WORDS; i += THREADS)
        words[i / WORDS][i % WORDS] = fresh(slots + max(listed[i / WORDS], 0) * WORDS + i % WORDS);
    for (int b = 0; b < batch; b++) {
        // The words are there, and what the block shares has been read for the row before.
        __syncthreads();
        bool running = listed[b] >= 0 && words[b][STATUS] == RUNNING;
        int drawn = words[b][DRAWN], slice = (words[b][PHASE] + drawn) % n_slices;
        int first = table[slice][0], width = table[slice][1];
        bool has_stop = stop_row >= 0 && words[b][HAS_STOP];
        float temperature = __int_as_float(words[b][TEMPERATURE_F]);
        Vector<4> h = normalize(token, gain, offset, moments);
        if (b + 1 < batch) token = take4(x + max(listed[b + 1], 0) * EMBD + channel);
        copies.wait();
        multiply_head(reinterpret_cast<const Storage*>(dynamic) + slice * own * EMBD, own, h, sums);
        // Needs no product, so the warps that have candidates may do it while others still multiply.
        float noise[EACH] = {};
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int r = e * THREADS + threadIdx.x, column = from + r;
            if (r >= own) continue;
            u32 word = philox_word(column < width ? first + column : stop_row, words[b][FIRST_DRAW] + drawn, stage,
                                   words[b][SEED_LOW], words[b][SEED_HIGH]);
            if (temperature != 0) noise[e] = gumbel_of_word(word);
        }
        __syncthreads();
        Found best = nothing_found();
#pragma unroll
        for (int e = 0; e < EACH; e++) {
            int r = e * THREADS + threadIdx.x, column = from + r;
            if (r >= own || column >= width + (stop_row >= 0)) continue;
            float value = 0;
#pragma unroll
            for (int w = 0; w < WARPS; w++) value += sums[w][r];
            // A row that does not run is computed like the others, so that its loads wait for nothing.
            if (running) logits[b * n_candidates + column] = value;
            if (column == width && !has_stop) continue;
            if (fabsf(value) < INFINITE) {
                float tempered = temper(value, temperature);
                merge(best, {tempered + noise[e], column, tempered, 1});
            } else {
                merge(best, {INFINITE, BROKEN, -INFINITE, 0});
            }
        }
        if (warp < FINDERS) {
            merge_lanes(best);
            if (lane == 0) by_warp[warp] = best;
        }
        __syncthreads();
        if (threadIdx.x == 0) {
#pragma unroll
            for (int w = 1; w < FINDERS; w++) merge(best, by_warp[w]);
            found[b * gridDim.x + blockIdx.x] = best;
            // One of these is the token whose embedding is needed soon.
            if (running && best.column >= 0 && best.column < width)
                prefetch(wte + static_cast<u64>(first + best.column) * EMBD, EMBD * sizeof(Storage));
            if (running && blockIdx.x == 0)
                prefetch(wpe + min(words[b][POSITION] + 1, POSITIONS - 1) * EMBD, EMBD * sizeof(Storage));
        }
    }

    // Logits and finds of this block stand before the barriers above, so whoever sees its arrival sees them; and it
    // has read all of x and slots that it needs, so the last block may overwrite both.
    if (threadIdx.x == 0) last = arrive(arrived) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    // All have arrived. The next launch sees this as it sees every other result: through its wait.
    if (threadIdx.x == 0) *arrived = 0;

    for (int b = warp; b < batch; b += WARPS) {
        constexpr int PARTS = (MOST_BLOCKS + 31) / 32;
        int slot = max(listed[b], 0), drawn = words[b][DRAWN], position = words[b][POSITION];
        int slice = (words[b][PHASE] + drawn) % n_slices, first = table[slice][0], width = table[slice][1];
        float temperature = __int_as_float(words[b][TEMPERATURE_F]);
        // All in one trip: whether a value is used is decided later.
        int* place = tokens + static_cast<u64>(slot) * POSITIONS + min(drawn, POSITIONS - 1);
        int token = fresh(place);
        float stop_value = fresh(logits + b * n_candidates + min(width, n_candidates - 1));
        float4 parts[PARTS];
        int blocks = gridDim.x;
#pragma unroll
        for (int i = 0; i < PARTS; i++)
            parts[i] = fresh4(reinterpret_cast<const float*>(found + b * blocks + min(32 * i + lane, blocks - 1)));
        Found best = nothing_found();
#pragma unroll
        for (int i = 0; i < PARTS; i++)
            if (32 * i + lane < blocks) merge(best, {parts[i].x, __float_as_int(parts[i].y), parts[i].z, parts[i].w});
        merge_lanes(best);

        bool running = listed[b] >= 0 && words[b][STATUS] == RUNNING, sound = running && best.column != BROKEN;
        bool has_stop = stop_row >= 0 && words[b][HAS_STOP], chosen = has_stop && best.column == width;
        float min_p = __int_as_float(words[b][MIN_P_F]), chance = chosen;
        if (temperature != 0) chance = __fdiv_rn(expf(temper(stop_value, temperature) - best.largest), best.total);
        bool forced = drawn < words[b][FORCED], likely = has_stop && min_p <= 1 && chance >= min_p;
        bool ended = !forced && (chosen || likely);
        if (!forced) token = ended ? stop_row : first + best.column;
        if (lane == 0) {
            int* own_words = slots + slot * WORDS;
            if (running) {
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
    for (int b = 0; b < batch; b++) {
        if (moved[b] < 0) continue;
        Vector<4> what = load4(wte + static_cast<u64>(moved[b]) * EMBD + channel);
        Vector<4> where = load4(wpe + (words[b][POSITION] + 1) * EMBD + channel);
        float4 sum = {what.at[0] + where.at[0], what.at[1] + where.at[1], what.at[2] + where.at[2],
                      what.at[3] + where.at[3]};
        *reinterpret_cast<float4*>(x + listed[b] * EMBD + channel) = sum;
    }
}
