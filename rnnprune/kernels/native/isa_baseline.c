/* Whatever the compiler targets by default: SSE2 on x86-64, NEON on arm64. */
#define ISA_NAME "baseline"
#define ISA_TABLE rp_kernels_baseline
#define ROWS_OF_16 4
#include "rp_kernels.inc.h"
