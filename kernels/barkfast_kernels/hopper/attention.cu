// Attention of one new token per sequence: a block per sequence, head and part of the context.
//
// All keys and values but the newest are asked for before the block waits for the kernel ahead of it.

constexpr int ATTENTION_WARPS = ATTENTION_THREADS / 32;

// Positions split * CHUNK to (split + 1) * CHUNK of one head of one row.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    decode_attention(const float* q, const Storage* keys, const Storage* values, float* partial, float* stats,
                     const int* rows, const int* slots, float scale) {
    constexpr int CHUNK = POSITIONS / SPLITS;
    // A position's lanes each hold four channels of it, or eight of two bytes.
    constexpr int PER = 16 / sizeof(Storage), LANES = HEAD_DIM / PER, GROUPS = 32 / LANES;
    constexpr int AT_ONCE = ATTENTION_WARPS * GROUPS, PASSES = CHUNK / AT_ONCE, ROW_BYTES = HEAD_DIM * sizeof(Storage);
    static_assert(CHUNK % AT_ONCE == 0 && LANES <= 32, "positions by lanes");
    __shared__ Copies copies;
    __shared__ float tops[ATTENTION_WARPS], totals[ATTENTION_WARPS], sums[ATTENTION_WARPS][HEAD_DIM];
    Storage *own_keys = reinterpret_cast<Storage*>(dynamic), *own_values = own_keys + CHUNK * HEAD_DIM;
    launch_next();
    int split = blockIdx.x, head = blockIdx.y, b = blockIdx.z, start = split * CHUNK;
    int listed = rows[b];
    u64 offset = ((static_cast<u64>(max(listed, 0)) * HEADS + head) * POSITIONS + start) * HEAD_DIM;
    __shared__ int asked;
    if (threadIdx.x == 0) {
        // The slot's position of this step or of an earlier one: all before it is in the cache since then.
        asked = min(max(slots[max(listed, 0) * WORDS + POSITION] - start, 0), CHUNK);
        copies.expect(2 * asked * ROW_BYTES);
        copies.add(own_keys, keys + offset, asked * ROW_BYTES);
        copies.add(own_values, values + offset, asked * ROW_BYTES);
    }
    __syncthreads();
    wait_for_last();

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = lane % LANES;
    Vector<4> query[PER / 4];
    Row row(listed, slots);
#pragma unroll
    for (int i = 0; i < PER / 4; i++) query[i] = take4(q + (b * HEADS + head) * HEAD_DIM + part * PER + 4 * i);
    if (!row.running) {
        copies.wait();
        return;
    }
    int count = min(max(min(row.position + 1, POSITIONS) - start, 0), CHUNK);
    // What was not asked for yet: the token's own position, and perhaps the one before.
    constexpr int PIECES = ROW_BYTES / 16;
    for (int i = asked * PIECES + threadIdx.x; i < count * PIECES; i += ATTENTION_THREADS) {
        reinterpret_cast<uint4*>(own_keys)[i] = reinterpret_cast<const uint4*>(keys + offset)[i];
        reinterpret_cast<uint4*>(own_values)[i] = reinterpret_cast<const uint4*>(values + offset)[i];
    }
    copies.wait();
    __syncthreads();

    float scores[PASSES], top = -INFINITE, total = 0;
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        int t = (p * ATTENTION_WARPS + warp) * GROUPS + lane / LANES;
        // No branch, so that all passes are under way at once; what lies beyond the count is not used.
        float score = 0;
#pragma unroll
        for (int i = 0; i < PER / 4; i++) {
            Vector<4> k = load4(own_keys + t * HEAD_DIM + part * PER + 4 * i);
#pragma unroll
            for (int j = 0; j < 4; j++) score = fmaf(k.at[j], query[i].at[j], score);
        }
#pragma unroll
        for (int step = 1; step < LANES; step *= 2) score += __shfl_xor_sync(~0u, score, step);
        scores[p] = t < count ? score * scale : -INFINITE;
        top = fmaxf(top, scores[p]);
    }
#pragma unroll
    for (int step = LANES; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    Vector<4> sum[PER / 4] = {};
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        int t = (p * ATTENTION_WARPS + warp) * GROUPS + lane / LANES;
        bool held = t < count;
        float weight_of = held ? exp2f(scores[p] - top) : 0;
        total += weight_of;
#pragma unroll
        for (int i = 0; i < PER / 4; i++) {
            Vector<4> v = load4(own_values + t * HEAD_DIM + part * PER + 4 * i);
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i].at[j] = fmaf(weight_of, held ? v.at[j] : 0, sum[i].at[j]);
        }
    }
#pragma unroll
    for (int step = LANES; step < 32; step *= 2) {
        total += __shfl_xor_sync(~0u, total, step);
#pragma unroll
        for (int i = 0; i < PER / 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[i].at[j] += __shfl_xor_sync(~0u, sum[i].at[j], step);
    }
    if (lane < LANES) {
        if (lane == 0) tops[warp] = top, totals[warp] = total;
#pragma unroll
        for (int i = 0; i < PER / 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) sums[warp][part * PER + 4 * i + j] = sum[i].at[j];
    }
    __syncthreads();
    if (threadIdx.x < HEAD_DIM) {
        float highest = -INFINITE, mass = 0, out = 0;
#pragma unroll
        for (int w = 0; w < ATTENTION_WARPS; w++) highest = fmaxf(highest, tops[w]);
#pragma unroll
        for (int w = 0; w < ATTENTION_WARPS; w++) {
            // Warps, and splits, that attended to nothing.
            float weight_of = tops[w] == -INFINITE ? 0 : exp2f(tops[w] - highest);
            mass = fmaf(weight_of, totals[w], mass);
            out = fmaf(weight_of, sums[w][threadIdx.x], out);
        }
        int at = (b * HEADS + head) * SPLITS + split;
        partial[at * HEAD_DIM + threadIdx.x] = out;
        if (threadIdx.x == 0) stats[2 * at] = highest, stats[2 * at + 1] = mass;
    }
}
