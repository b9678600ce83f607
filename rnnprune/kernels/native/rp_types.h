/* Plain data at every border of the engine: a pointer never travels without its element type and its length.
 *
 * Sizes: T time, B batch, I input, H hidden, P projection, G gates. Gates: LSTM i f g o, GRU r z n, as in torch.
 * Nothing here knows Python. There is no global mutable state in the engine: all of it lives in objects you hold. */
#ifndef RP_TYPES_H
#define RP_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const float *data;
    size_t len;
} rp_f32_in;

typedef struct {
    float *data;
    size_t len;
} rp_f32_out;

typedef struct {
    const int32_t *data;
    size_t len;
} rp_i32_in;

/* Column numbers as a file holds them: uint16 when cols <= 65536, else int32. Exactly one pointer is set. */
typedef struct {
    const uint16_t *u16;
    const int32_t *i32;
    size_t len;
} rp_columns_in;

/* A borrowed CSR matrix. crow_indices has rows + 1 entries, the others nnz. */
typedef struct {
    size_t rows, cols;
    rp_i32_in crow_indices;
    rp_columns_in col_indices;
    rp_f32_in values;
} rp_csr;

typedef enum {
    RP_OK = 0,
    RP_NO_MEMORY,
    RP_BAD_CSR,      /* pointers not monotone, a column out of range or not rising, lengths that disagree */
    RP_BAD_LENGTH,   /* a buffer is shorter than the shapes ask for */
    RP_BAD_ARGUMENT, /* a size of zero, an unknown layout, too many threads */
    RP_NO_THREAD     /* the system refused to start a thread */
} rp_status;

const char *rp_status_text(rp_status status);

/* Checks everything a malformed file could get wrong; every pack function calls it first. */
rp_status rp_csr_check(const rp_csr *csr);

static inline size_t rp_csr_column(const rp_csr *csr, size_t k) {
    return csr->col_indices.u16 ? csr->col_indices.u16[k] : (size_t)(uint32_t)csr->col_indices.i32[k];
}

static inline size_t rp_round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

#endif
