// What every level_*.cpp starts with: the headers the kernels need, and the way to open a region of code that is
// compiled for an instruction set of its own.
//
// A level is one namespace. Into it go one simd_*.h, the vocabulary of sixteen lanes, and then the kernels, which are
// written once in that vocabulary. All standard headers must come before the region: code in it may use instructions
// that the machine lacks, and an inline function of the library compiled there could be the copy that the linker keeps.
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

// GCC 12 leaves small loops over arrays of registers rolled, and the arrays in memory, unless it is told.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 16")
#else
#define UNROLL
#endif

// Ask for memory early: panels are too short for the processor to foresee where the reading goes. Past the end of an
// array no harm is done.
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
