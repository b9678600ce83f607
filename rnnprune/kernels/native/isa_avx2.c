/* The same source compiled for x86-64 with avx2,fma. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA_NAME "avx2"
#define ISA_TABLE rp_kernels_avx2
#define HAS_V8
#define ROWS_OF_16 4
#include "rp_kernels.inc.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int rp_isa_avx2_is_for_x86_only;
#endif
