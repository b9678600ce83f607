/* The kernels of one instruction set, as a table. Every isa_*.c compiles the same source and fills one table. */
#ifndef RP_KERNELS_H
#define RP_KERNELS_H

#include "rp_matrix.h"

/* The batch is the fast axis of x and y and is padded to a multiple of this; batch 1 has kernels of its own. */
#define RP_BATCH_STEP 8

typedef enum { RP_RNN_TANH = 0, RP_RNN_RELU, RP_GRU, RP_LSTM } rp_kind;

/* One step of one cell over rows x width values. Strides count floats. Sums in gates: LSTM i f g o; RNN h;
 * GRU r z n_x n_h, where n_x comes from the input and n_h (with b_hn) from the state. */
typedef struct {
    const float *gates;
    size_t gates_len, gate_stride, row_stride;
    const float *h_before; /* GRU; rows x width, dense */
    float *h, *c;          /* rows x width, dense; c for LSTM only */
    size_t state_len;      /* of h_before, h and c */
    size_t rows, width;    /* width is a multiple of RP_BATCH_STEP */
} rp_cell_step;

typedef struct {
    const char *name;
    bool has_window;
    /* y += A x for one vector */
    void (*matvec)(const rp_matrix *a, rp_f32_in x, rp_f32_out y);
    /* y += A x for width columns, a multiple of RP_BATCH_STEP; row r of x starts at x + r * x_stride, of y likewise */
    void (*matmat)(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride, size_t width);
    void (*cell[4])(const rp_cell_step *step);
    /* to[j, i] = from[i, j]; rows and cols are multiples of RP_BATCH_STEP */
    void (*transpose)(rp_f32_in from, size_t rows, size_t cols, rp_f32_out to);
    /* for the tests of their error bounds: at most 4 units in the last place */
    void (*tanh)(rp_f32_in x, rp_f32_out y);
    void (*sigmoid)(rp_f32_in x, rp_f32_out y);
} rp_kernels;

/* The best table that this processor can run; never NULL. */
const rp_kernels *rp_kernels_best(void);
/* "baseline", "avx2", "avx512" or NULL for the best; NULL when this processor or build lacks it. */
const rp_kernels *rp_kernels_named(const char *name);

#endif
