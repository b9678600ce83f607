/* A packed sparse matrix: made once from CSR, read by the kernels, y += A x.
 *
 *   RP_SELL    chunks of 8 rows, sorted by length, one column of the chunk after another (slots)
 *   RP_WINDOW  groups of 16 rows walk along their columns in steps: 64 values of x sit in registers and each of the step's
 *              two slots picks from them (AVX-512 only); what would hold a group up goes to a SELL remainder
 *   RP_BLOCK   dense blocks of lanes x width (16x1, 8x1, 8x4, 4x4), stored column by column; values fp32 or int8
 */
#ifndef RP_MATRIX_H
#define RP_MATRIX_H

#include "rp_types.h"

#define RP_NO_ROW UINT32_MAX /* a padding lane: computed, never stored */
#define RP_SELL_LANES 8
#define RP_WINDOW_LANES 16
#define RP_WINDOW_COLUMNS 64
#define RP_WINDOW_SLOTS 2

typedef enum { RP_SELL = 0, RP_WINDOW, RP_BLOCK } rp_layout;

typedef struct {
    rp_layout layout;
    size_t lanes, width; /* rows and columns of a block; width is 1 for RP_SELL */
    bool int8_values;    /* RP_BLOCK only: value = int8 * scale of its row */
} rp_format;

/* Which rows of the CSR matrix are packed, and where in y each one lands. Both have len entries. */
typedef struct {
    const uint32_t *source, *target;
    size_t len;
} rp_row_map;

typedef struct rp_matrix rp_matrix;
struct rp_matrix {
    rp_format format;
    size_t rows, cols;      /* y must have rows rows, x cols rows */
    size_t nnz;             /* entries taken from the CSR matrix */
    size_t groups;          /* of format.lanes rows each */
    size_t slots;           /* slots (RP_SELL), steps (RP_WINDOW) or blocks (RP_BLOCK) */
    uint32_t *group_start;  /* [groups + 1], in slots, steps or blocks */
    uint32_t *row_of_lane;  /* [groups * lanes] */
    uint16_t *columns;      /* RP_SELL: [slots * lanes]; RP_BLOCK, RP_WINDOW: [slots], first column of the block or window */
    uint32_t *wide_columns; /* RP_SELL, in place of columns when cols > 65536 */
    float *values;          /* [slots * lanes], RP_WINDOW: [steps * 2 * lanes], RP_BLOCK: [blocks * lanes * width] */
    int8_t *int8_values;    /* in place of values */
    float *scales;          /* [groups * lanes], int8 only */
    uint8_t *window_column; /* RP_WINDOW: as values, column within the window */
    rp_matrix *remainder;   /* RP_WINDOW: what did not fit, as RP_SELL */
    size_t bytes;           /* of all of the above */
};

rp_status rp_matrix_pack(rp_matrix *matrix, const rp_csr *csr, rp_row_map rows, rp_format format, size_t target_rows);
void rp_matrix_free(rp_matrix *matrix);

/* The parts of packing, one per file; rp_matrix_pack has checked their arguments. */
rp_status rp_pack_sell(rp_matrix *matrix, const rp_csr *csr, rp_row_map rows);
rp_status rp_pack_window(rp_matrix *matrix, const rp_csr *csr, rp_row_map rows);
rp_status rp_pack_block(rp_matrix *matrix, const rp_csr *csr, rp_row_map rows);

/* As rp_alloc, and counts the bytes. */
void *rp_matrix_alloc(rp_matrix *matrix, size_t count, size_t size);

#endif
