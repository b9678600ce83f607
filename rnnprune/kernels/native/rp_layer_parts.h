/* What a prepared layer consists of: shared by rp_layer.c, which builds it, and rp_layer_run.c, which runs it. */
#ifndef RP_LAYER_PARTS_H
#define RP_LAYER_PARTS_H

#include <pthread.h>

#include "rp_layer.h"

#define RP_TILE 16 /* columns of one input projection: steps times padded batch */

/* The share of one thread. Gate row k * padded + (unit - first) holds gate slot k of a unit. */
typedef struct {
    size_t first, units, padded; /* padded: units rounded up for whole vectors */
    size_t first_out, outs;      /* rows of weight_hr, with a projection */
    rp_matrix ih, hh, hr;
    float *bias;  /* [slots * padded] */
    float *x;     /* [I, columns of a tile] */
    float *gates; /* [slots * padded, columns], batch 1: [steps of a tile, slots * padded] */
    float *gates_by_row; /* batch 1: the projection before it is transposed */
} rp_part;

struct rp_layer {
    rp_kind kind;
    size_t input_size, hidden_size, proj_size, slots;
    const rp_kernels *kernels;
    size_t threads, bytes;
    rp_part *parts; /* [threads] */
    size_t capacity; /* padded batch for which the buffers are made; 0 before the first call */
    float *h[2];     /* [P or H, B], read from one while the other is written */
    float *c;        /* [H, B], LSTM */
    float *unprojected; /* [H, B], with a projection */
    pthread_mutex_t lock;
};

static inline size_t rp_output_size(const rp_layer *l) { return l->proj_size ? l->proj_size : l->hidden_size; }

/* Batch 1 stays 1; else whole vectors. */
static inline size_t rp_padded_batch(size_t B) { return B == 1 ? 1 : rp_round_up(B, RP_BATCH_STEP); }

static inline size_t rp_steps_of_tile(size_t padded_batch) {
    return padded_batch >= RP_TILE ? 1 : RP_TILE / padded_batch;
}

/* Makes the buffers large enough for this padded batch. */
rp_status rp_layer_reserve(rp_layer *layer, size_t padded_batch);

#endif
