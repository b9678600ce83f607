#include "rp_kernels.h"

#include <string.h>

extern const rp_kernels rp_kernels_baseline;
#if defined(__x86_64__)
extern const rp_kernels rp_kernels_avx2, rp_kernels_avx512;

static bool has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

const rp_kernels *rp_kernels_best(void) {
#if defined(__x86_64__)
    if (has_avx512()) return &rp_kernels_avx512;
    if (has_avx2()) return &rp_kernels_avx2;
#endif
    return &rp_kernels_baseline;
}

const rp_kernels *rp_kernels_named(const char *name) {
    if (!name) return rp_kernels_best();
    if (!strcmp(name, "baseline")) return &rp_kernels_baseline;
#if defined(__x86_64__)
    if (!strcmp(name, "avx2")) return has_avx2() ? &rp_kernels_avx2 : NULL;
    if (!strcmp(name, "avx512")) return has_avx512() ? &rp_kernels_avx512 : NULL;
#endif
    return NULL;
}
