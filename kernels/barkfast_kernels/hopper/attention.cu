// Attention of one new token per sequence: one block per sequence, head and part of the context.
//
// The block requests all keys and values but the newest before it waits for the previous kernel. That kernel also
// stores the newest key and value in a separate buffer, where they can be loaded without the slot's position.

constexpr int ATTENTION_WARPS = ATTENTION_THREADS / 32;

// Positions split * CHUNK to (split + 1) * CHUNK of one head of one row.
extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS)
    decode_attention(const float* q, const Storage* newest, const Storage* keys, const Storage* values, float* partial,
                     float* stats, const int* rows, const int* slots, float scale, const char* ahead, u32 ahead_bytes) {
    constexpr int CHUNK = POSITIONS / SPLITS;
    // Each lane of a position holds four of its channels, or eight if they have two bytes.
    constexpr int PER = 16 / sizeof(Storage), LANES = HEAD_DIM / PER, GROUPS = 32 / LANES;
    constexpr int AT_ONCE = ATTENTION_WARPS * GROUPS, PASSES = CHUNK / AT_ONCE, ROW_BYTES = HEAD_DIM * sizeof(Storage);
    static_assert(CHUNK % AT_ONCE == 0 && PASSES <= LANES && LANES <= 32, "positions by lanes");
    __shared__ Copies copies;
    __shared__ float tops[ATTENTION_WARPS], totals[ATTENTION_WARPS], sums[ATTENTION_WARPS][HEAD_DIM];
    Storage *own_keys = reinterpret_cast<Storage*>(dynamic), *own_values = own_keys + CHUNK * HEAD_DIM;
    if (TRIGGER_FIRST) launch_next();
    int split = blockIdx.x, head = blockIdx.y, b = blockIdx.z, start = split * CHUNK;
    int listed = listed_slot(rows, b);
    u64 offset = ((static_cast<u64>(max(listed, 0)) * HEADS + head) * POSITIONS + start) * HEAD_DIM;
    __shared__ int asked;
    if (threadIdx.x == 0) {
        // This reads the slot's position of this step or of an earlier one; the cache holds all positions before it.
        asked = min(max(fresh(slots + max(listed, 0) * WORDS + POSITION) - start, 0), CHUNK);
        copies.expect(2 * asked * ROW_BYTES);
        copies.add(own_keys, keys + offset, asked * ROW_BYTES);
        copies.add(own_values, values + offset, asked * ROW_BYTES);
    }
    Ahead{ahead, ahead_bytes}.prefetch();
    if (!TRIGGER_FIRST) launch_next();
    __syncthreads();
    wait_for_last();

    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, part = lane % LANES;
    Vector<4> query[PER / 4];
    // The first threads load 16 bytes each of the newest key, the next threads of the newest value.
    constexpr int PIECES = ROW_BYTES / 16;
    int piece = threadIdx.x % PIECES, is_value = threadIdx.x / PIECES % 2;
    uint4 own_newest = {};
    if (ONE_TRIP) own_newest = fresh_raw(newest + (2 * b + is_value) * EMBD + head * HEAD_DIM + piece * PER);
#pragma unroll
    for (int i = 0; i < PER / 4; i++) query[i] = take4(q + (b * HEADS + head) * HEAD_DIM + part * PER + 4 * i);
    Row row(listed, slots);
    if (!ONE_TRIP && !row.running()) {
        copies.wait();
        return;
    }
    int end = min(row.position + 1, POSITIONS) - start, count = min(max(end, 0), CHUNK);
    copies.wait();
    if (ONE_TRIP && threadIdx.x < 2 * PIECES && row.position < POSITIONS && end > 0 && end <= CHUNK)
        reinterpret_cast<uint4*>(is_value ? own_values : own_keys)[(end - 1) * PIECES + piece] = own_newest;
    // Load what was not requested yet because the position read above was of an earlier step: a second round trip.
    int known = ONE_TRIP && row.position < POSITIONS ? min(end - 1, CHUNK) : count;
#pragma unroll 1
    for (int i = asked * PIECES + threadIdx.x; i < known * PIECES; i += ATTENTION_THREADS) {
        reinterpret_cast<uint4*>(own_keys)[i] = fresh_raw(keys + offset + i * PER);
        reinterpret_cast<uint4*>(own_values)[i] = fresh_raw(values + offset + i * PER);
    }
    __syncthreads();

    // The lanes of a position compute their parts of its score, for each pass; then each lane gets one pass's score.
    float scores[PASSES];
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        scores[p] = 0;
        // Without a branch all passes overlap; positions beyond the count are not used.
        if (BRANCHLESS || (p * ATTENTION_WARPS + warp) * GROUPS < count) {
            int t = (p * ATTENTION_WARPS + warp) * GROUPS + lane / LANES;
#pragma unroll
            for (int i = 0; i < PER / 4; i++) {
                Vector<4> k = load4(own_keys + t * HEAD_DIM + part * PER + 4 * i);
#pragma unroll
                for (int j = 0; j < 4; j++) scores[p] = fmaf(k.at[j], query[i].at[j], scores[p]);
            }
        }
    }
    float score = add_lanes<PASSES, LANES>(scores, lane), top, total = 0;
    bool held = (lane % PASSES * ATTENTION_WARPS + warp) * GROUPS + lane / LANES < count;
    top = score = held ? score * scale : -INFINITE;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, step));
    float weight_of = held ? power_of_two(score - top) : 0;
    Vector<4> sum[PER / 4] = {};
#pragma unroll
    for (int p = 0; p < PASSES; p++) {
        float weight = __shfl_sync(~0u, weight_of, lane - part + p);
        int t = (p * ATTENTION_WARPS + warp) * GROUPS + lane / LANES;
        total += weight;
        if (BRANCHLESS || t < count) {
#pragma unroll
            for (int i = 0; i < PER / 4; i++) {
                Vector<4> v = load4(own_values + t * HEAD_DIM + part * PER + 4 * i);
#pragma unroll
                for (int j = 0; j < 4; j++) sum[i].at[j] = fmaf(weight, t < count ? v.at[j] : 0, sum[i].at[j]);
            }
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
            // 0 for warps, and splits, without any position.
            float weight_of = tops[w] == -INFINITE ? 0 : power_of_two(tops[w] - highest);
            mass = fmaf(weight_of, totals[w], mass);
            out = fmaf(weight_of, sums[w][threadIdx.x], out);
        }
        int at = (b * HEADS + head) * SPLITS + split;
        if (row.running()) {
            partial[at * HEAD_DIM + threadIdx.x] = out;
            if (threadIdx.x == 0) stats[2 * at] = highest, stats[2 * at + 1] = mass;
        }
    }
}
