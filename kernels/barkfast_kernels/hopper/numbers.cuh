// Loads and stores of the storage types, sizes of the network, prefetch of weights, and the slot of a batch row.
//
// Compiled with EMBD, HEADS, POSITIONS, SPLITS, the rows of each matrix per block, the words of a slot (see
// barkfast_kernels/slots.py), and the types Storage (activations, norms, KV cache) and Weight: each is one of float,
// Half, Bfloat and, for Weight, Int8.

constexpr int HEAD_DIM = EMBD / HEADS;
constexpr int THREADS = EMBD / 4;
constexpr int WARPS = THREADS / 32;

struct Int8 {
    signed char value;
};

template <int N>
struct Vector {
    float at[N];
};

__device__ __forceinline__ void unpack(u32 pair, float& low, float& high, Bfloat) {
    low = __uint_as_float(pair << 16);
    high = __uint_as_float(pair & 0xffff0000u);
}

// Four adjacent values, in one load.
template <class T>
__device__ __forceinline__ Vector<4> load4(const T* p) {
    uint2 raw = *reinterpret_cast<const uint2*>(p);
    Vector<4> v;
    unpack(raw.x, v.at[0], v.at[1], T());
    unpack(raw.y, v.at[2], v.at[3], T());
    return v;
}

template <>
__device__ __forceinline__ Vector<4> load4(const float* p) {
    float4 raw = *reinterpret_cast<const float4*>(p);
    return {{raw.x, raw.y, raw.z, raw.w}};
}

template <>
__device__ __forceinline__ Vector<4> load4(const Int8* p) {
    // The float 2**23 with a byte in its lowest bits is 2**23 plus the byte.
    u32 raw = *reinterpret_cast<const u32*>(p) ^ 0x80808080u;
    Vector<4> v;
#pragma unroll
    for (int i = 0; i < 4; i++) v.at[i] = __uint_as_float(__byte_perm(raw, 0x4B000000u, 0x7440 + i)) - 8388736.0f;
    return v;
}

// Four adjacent values that another kernel writes.
__device__ __forceinline__ Vector<4> take4(const float* p) {
    float4 raw = fresh4(p);
    return {{raw.x, raw.y, raw.z, raw.w}};
}
template <class T>
__device__ __forceinline__ Vector<4> take4(const T* p) {
    uint2 raw = fresh2(p);
    Vector<4> v;
    unpack(raw.x, v.at[0], v.at[1], T());
    unpack(raw.y, v.at[2], v.at[3], T());
    return v;
}

__device__ __forceinline__ void store(float* p, float value) { *p = value; }

// Weights of a later kernel to prefetch into the L2 cache; each thread of the grid requests a share.
struct Ahead {
    const char* weights;
    u32 bytes;

    __device__ __forceinline__ void prefetch() const {
        if (!bytes) return;
        u32 block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
        u32 threads = gridDim.x * gridDim.y * gridDim.z * blockDim.x;
        u32 share = ((bytes + threads - 1) / threads + 15) & ~15u, first = (block * blockDim.x + threadIdx.x) * share;
        u32 size = first < bytes ? min(share, bytes - first) & ~15u : 0;
        if (size) ::prefetch(weights + first, size);
    }
};

// The slot of row b of the batch. With a single slot `rows` is null, which saves a load that others depend on.
__device__ __forceinline__ int listed_slot(const int* rows, int b) { return rows ? rows[b] : b; }

// The slot of a row of the batch. Its words are compared only where they are needed: a comparison here would wait for
// the loads.
struct Row {
    int listed, slot, position, status;

    __device__ __forceinline__ Row(int listed_, const int* slots) : listed(listed_), slot(max(listed_, 0)) {
        const int* words = slots + slot * WORDS;
        position = fresh(words + POSITION);
        status = fresh(words + STATUS);
    }
    __device__ __forceinline__ bool running() const { return listed >= 0 && status == RUNNING; }
};
