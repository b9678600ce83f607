/* Aligned buffers. Large ones ask for huge pages: a matrix that is streamed once per step is bound by page walks else. */
#ifndef RP_MEMORY_H
#define RP_MEMORY_H

#include <stddef.h>

/* Zero-filled, aligned to 64 bytes, never NULL for count 0; NULL when there is no memory or count * size overflows. */
void *rp_alloc(size_t count, size_t size);
void rp_free(void *pointer);

#endif
