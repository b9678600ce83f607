#define _GNU_SOURCE
#include "rp_memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((size_t)2 << 20)

void *rp_alloc(size_t count, size_t size) {
    if (size && count > (SIZE_MAX - 2 * HUGE_PAGE) / size) return NULL;
    size_t bytes = count * size + 64; /* slack: vector loads may read, never write, past the last element */
    size_t alignment = bytes >= HUGE_PAGE / 2 ? HUGE_PAGE : 64;
    bytes = (bytes + alignment - 1) / alignment * alignment;
    void *pointer = aligned_alloc(alignment, bytes);
    if (!pointer) return NULL;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    if (alignment == HUGE_PAGE) (void)madvise(pointer, bytes, MADV_HUGEPAGE); /* a hint: refusal costs speed only */
#endif
    return memset(pointer, 0, bytes);
}

void rp_free(void *pointer) { free(pointer); }
