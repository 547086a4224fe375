// Every level (level.cpp.in) includes this first: the headers that the kernels need, and macros that open a region of
// code compiled for one instruction set.
//
// A level is one namespace: one simd_*.h, which defines operations on sixteen lanes, then the kernels, written once
// with these operations. All standard headers must come before the region: an inline library function compiled inside
// it may use instructions that the machine lacks, and the linker could keep that copy.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "barkfast/kernels.h"
#include "barkfast/matrix.h"
#include "filters.h"
#include "scratch.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define BARKFAST_X86 1
#include <immintrin.h>
#else
#define BARKFAST_X86 0
#endif

#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

// Without this, GCC 12 does not unroll small loops over arrays of registers, and keeps the arrays in memory.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

// Prefetch: panels are too short for the hardware prefetcher to predict the reads. Prefetching past the end of an array
// is harmless.
INLINE void prefetch(const void* p) {
#if defined(__GNUC__) || defined(__clang__)
    __builtin_prefetch(p);
#else
    (void)p;
#endif
}

#define BARKFAST_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define BEGIN_TARGET(features) \
    BARKFAST_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define END_TARGET BARKFAST_PRAGMA(clang attribute pop)
#elif defined(__GNUC__)
#define BEGIN_TARGET(features) BARKFAST_PRAGMA(GCC push_options) BARKFAST_PRAGMA(GCC target(features))
#define END_TARGET BARKFAST_PRAGMA(GCC pop_options)
#endif
