// The tile registers of AMX: eight, of up to 16 rows of 64 bytes. Included inside a level's namespace and target
// region.
//
// No intrinsics: the compiler's accept the register number only as a literal.

// Number of rows and bytes per row of each register (the layout of LDTILECFG).
struct TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// Zeros all registers. Between begin and end a context switch of this thread saves 8 KiB more.
INLINE void begin_tiles(const TileShapes& shapes) { __asm__ volatile("ldtilecfg %0" : : "m"(shapes)); }
INLINE void end_tiles() { __asm__ volatile("tilerelease" : : : "memory"); }

template <int T>
INLINE void zero_tile() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(T));
}
// Rows `stride` bytes apart.
template <int T>
INLINE void load_tile(const void* p, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(p), "r"(stride), "i"(T) : "memory");
}
template <int T>
INLINE void store_tile(void* p, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(p), "r"(stride), "i"(T) : "memory");
}
// C[m][n] += the sum over k of A[m][2 k] B[k][2 n] + A[m][2 k + 1] B[k][2 n + 1], bfloat16 times bfloat16 in float.
template <int C, int A, int B>
INLINE void dot_tiles() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
