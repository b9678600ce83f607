/* One direction of one recurrent layer: prepared once, run many times.
 *
 * Threads share a layer by units: all gate rows of a unit belong to one thread, so one barrier per step is enough (two
 * with a projection). The state is kept as [H][B]; the input projection runs in tiles of up to 16 columns (16 steps
 * at batch 1) just before the steps that use it, so buffers do not grow with T. A layer serves one call at a time and
 * a second caller waits. */
#ifndef RP_LAYER_H
#define RP_LAYER_H

#include "rp_kernels.h"
#include "rp_pool.h"

typedef struct rp_layer rp_layer;

/* Weights as in torch: weight_ih [G H, I], weight_hh [G H, H or P], weight_hr [P, H] with a projection (LSTM only, else
 * proj_size 0). bias_ih and bias_hh are [G H], or empty. All are copied. */
typedef struct {
    rp_kind kind;
    size_t input_size, hidden_size, proj_size;
    rp_csr weight_ih, weight_hh, weight_hr;
    rp_f32_in bias_ih, bias_hh;
    rp_format format_ih, format_hh, format_hr; /* RP_WINDOW serves batch 1 of weight_hh only */
    const char *isa;                           /* NULL: the best */
} rp_layer_spec;

/* A run over T steps. Element (t, b, i) of x is x.data[t * x_step + b * x_batch + i], of y likewise: either layout of
 * torch, and one half of a bidirectional output, work without a copy. h0 and h_n are [B, P or H], c0 and c_n [B, H]
 * (LSTM); h0 and c0 may be empty (zeros), h_n and c_n too (not wanted). */
typedef struct {
    size_t T, B;
    rp_f32_in x;
    size_t x_step, x_batch;
    rp_f32_out y;
    size_t y_step, y_batch;
    rp_f32_in h0, c0;
    rp_f32_out h_n, c_n;
    bool reverse;
} rp_layer_call;

rp_status rp_layer_new(rp_layer **layer, const rp_layer_spec *spec, size_t threads);
void rp_layer_free(rp_layer *layer);

/* Checks every length first. Allocates only when B is larger than in any call before. The pool must have as many threads
 * as the layer was made for. */
rp_status rp_layer_run(rp_layer *layer, rp_pool *pool, const rp_layer_call *call);

size_t rp_layer_bytes(const rp_layer *layer); /* of the packed weights */
const char *rp_layer_isa(const rp_layer *layer);

#endif
