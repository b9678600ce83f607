/* The same source compiled for x86-64 with avx2,fma,avx512f,avx512bw,avx512dq,avx512vl. */
#if defined(__x86_64__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define ISA_NAME "avx512"
#define ISA_TABLE rp_kernels_avx512
#define HAS_V8
#define ROWS_OF_16 8
#define HAS_V16
#define HAS_WINDOW
#include "rp_kernels.inc.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int rp_isa_avx512_is_for_x86_only;
#endif
