#include <string.h>

#include "rp_layer.h"
#include "rp_layer_parts.h"

#define MATVEC_STEPS 3 /* up to here one product per step beats a 16-wide tile that is mostly empty */

/* One run as its threads see it. */
typedef struct {
    rp_layer *layer;
    rp_pool *pool;
    const rp_layer_call *call;
    size_t padded_batch;
} running;

static size_t time_of(const rp_layer_call *call, size_t step) { return call->reverse ? call->T - 1 - step : step; }

/* [B, size] <-> rows first .. first + count of [size, padded batch]; an empty source means zeros. */
static void load_state(const running *r, rp_f32_in from, size_t size, size_t first, size_t count, float *to) {
    memset(to + first * r->padded_batch, 0, count * r->padded_batch * sizeof *to);
    for (size_t b = 0; from.len && b < r->call->B; b++)
        for (size_t i = first; i < first + count; i++) to[i * r->padded_batch + b] = from.data[b * size + i];
}

static void store_rows(const running *r, const float *from, size_t first, size_t count, float *to, size_t batch_stride) {
    for (size_t b = 0; b < r->call->B; b++)
        for (size_t i = first; i < first + count; i++) to[b * batch_stride + i] = from[i * r->padded_batch + b];
}

/* The bias, in every column of the tile. */
static void start_gates(const rp_part *part, size_t rows, size_t columns, float *gates) {
    for (size_t row = 0; row < rows; row++)
        for (size_t j = 0; j < columns; j++) gates[row * columns + j] = part->bias[row];
}

/* x of `steps` steps from `first_step` on, as [I, columns]; a column is a step and a batch entry. */
static void gather_x(const running *r, rp_part *part, size_t first_step, size_t steps, size_t columns) {
    const rp_layer_call *call = r->call;
    size_t I = r->layer->input_size;
    memset(part->x, 0, I * columns * sizeof *part->x);
    for (size_t s = 0; s < steps; s++)
        for (size_t b = 0; b < call->B; b++) {
            const float *x = call->x.data + time_of(call, first_step + s) * call->x_step + b * call->x_batch;
            for (size_t i = 0; i < I; i++) part->x[i * columns + s * r->padded_batch + b] = x[i];
        }
}

static void project_tile(const running *r, rp_part *part, size_t first_step, size_t steps, size_t columns, float *gates) {
    const rp_layer *l = r->layer;
    size_t rows = l->slots * part->padded;
    gather_x(r, part, first_step, steps, columns);
    start_gates(part, rows, columns, gates);
    l->kernels->matmat(&part->ih, (rp_f32_in){part->x, l->input_size * columns}, columns,
                       (rp_f32_out){gates, rows * columns}, columns, columns);
}

/* Batch 1: gates end as [steps, rows], one contiguous vector per step. */
static void project_single(const running *r, rp_part *part, size_t first_step, size_t steps) {
    const rp_layer *l = r->layer;
    size_t rows = l->slots * part->padded, columns = rp_round_up(steps, RP_BATCH_STEP);
    if (steps > MATVEC_STEPS) {
        project_tile(r, part, first_step, steps, columns, part->gates_by_row);
        l->kernels->transpose((rp_f32_in){part->gates_by_row, rows * columns}, rows, columns,
                              (rp_f32_out){part->gates, rows * columns});
        return;
    }
    for (size_t s = 0; s < steps; s++) {
        const float *x = r->call->x.data + time_of(r->call, first_step + s) * r->call->x_step;
        memcpy(part->gates + s * rows, part->bias, rows * sizeof *part->bias);
        l->kernels->matvec(&part->ih, (rp_f32_in){x, l->input_size}, (rp_f32_out){part->gates + s * rows, rows});
    }
}

/* gates += W_hh h, then the cell. `gates` is where this step begins in the tile. */
static void step_gates(const running *r, rp_part *part, const float *h, float *h_next, float *gates, size_t columns) {
    const rp_layer *l = r->layer;
    size_t B = r->padded_batch, rows = l->slots * part->padded, state = rp_output_size(l) * B;
    rp_f32_out sums = {gates, B == 1 ? rows : rows * columns - (columns - B)};
    if (B == 1)
        l->kernels->matvec(&part->hh, (rp_f32_in){h, state}, sums);
    else
        l->kernels->matmat(&part->hh, (rp_f32_in){h, state}, B, sums, columns, B);
    rp_cell_step step = {.gates = gates,
                         .gates_len = sums.len,
                         .gate_stride = part->padded * (B == 1 ? 1 : columns),
                         .row_stride = columns,
                         .h_before = h + part->first * B,
                         .h = h_next + part->first * B,
                         .c = l->c + part->first * B,
                         .state_len = part->padded * B,
                         .rows = B == 1 ? 1 : part->units,
                         .width = B == 1 ? part->padded : B};
    l->kernels->cell[l->kind](&step);
}

/* h = W_hr (o tanh c); every unit must be ready before, and every output after. */
static void project_state(const running *r, rp_part *part, float *h_next) {
    const rp_layer *l = r->layer;
    size_t B = r->padded_batch;
    rp_f32_in units = {l->unprojected, l->hidden_size * B};
    rp_f32_out outs = {h_next + part->first_out * B, part->outs * B};
    rp_pool_barrier(r->pool);
    memset(outs.data, 0, outs.len * sizeof *outs.data);
    if (B == 1)
        l->kernels->matvec(&part->hr, units, outs);
    else
        l->kernels->matmat(&part->hr, units, B, outs, B, B);
}

static void run_thread(void *context, size_t thread) {
    const running *r = context;
    const rp_layer *l = r->layer;
    const rp_layer_call *call = r->call;
    rp_part *part = &l->parts[thread];
    size_t B = r->padded_batch, steps_of_tile = rp_steps_of_tile(B), columns = B * steps_of_tile;
    size_t first = l->proj_size ? part->first_out : part->first, count = l->proj_size ? part->outs : part->units;
    float *h = l->h[0], *h_next = l->h[1];
    load_state(r, call->h0, rp_output_size(l), first, count, h);
    if (l->kind == RP_LSTM) load_state(r, call->c0, l->hidden_size, part->first, part->units, l->c);
    rp_pool_barrier(r->pool);
    for (size_t step = 0; step < call->T; step++) {
        size_t s = step % steps_of_tile, left = call->T - step;
        if (s == 0 && B == 1) project_single(r, part, step, left < steps_of_tile ? left : steps_of_tile);
        if (s == 0 && B > 1)
            project_tile(r, part, step, left < steps_of_tile ? left : steps_of_tile, columns, part->gates);
        float *gates = part->gates + (B == 1 ? s * l->slots * part->padded : s * B);
        step_gates(r, part, h, l->proj_size ? l->unprojected : h_next, gates, columns);
        if (l->proj_size) project_state(r, part, h_next);
        store_rows(r, h_next, first, count, call->y.data + time_of(call, step) * call->y_step, call->y_batch);
        rp_pool_barrier(r->pool);
        float *swap = h;
        h = h_next;
        h_next = swap;
    }
    if (call->h_n.len) store_rows(r, h, first, count, call->h_n.data, rp_output_size(l));
    if (call->c_n.len) store_rows(r, l->c, part->first, part->units, call->c_n.data, l->hidden_size);
}

static bool strides_fit(const rp_layer_call *c, size_t step, size_t batch, size_t last, size_t len) {
    if (step > INT32_MAX || batch > INT32_MAX) return false; /* so that the sums below cannot overflow */
    return (c->T - 1) * step + (c->B - 1) * batch + last <= len;
}

static rp_status check_call(const rp_layer *l, const rp_layer_call *c) {
    size_t out = rp_output_size(l), h = c->B * out, cell = c->B * l->hidden_size;
    if (c->T == 0 || c->B == 0 || c->T > INT32_MAX || c->B > 65536) return RP_BAD_ARGUMENT;
    if (l->kind != RP_LSTM && (c->c0.len || c->c_n.len)) return RP_BAD_ARGUMENT;
    bool states = (!c->h0.len || c->h0.len == h) && (!c->c0.len || c->c0.len == cell) && (!c->h_n.len || c->h_n.len == h) &&
                  (!c->c_n.len || c->c_n.len == cell);
    bool sequences = strides_fit(c, c->x_step, c->x_batch, l->input_size, c->x.len) &&
                     strides_fit(c, c->y_step, c->y_batch, out, c->y.len);
    return states && sequences ? RP_OK : RP_BAD_LENGTH;
}

rp_status rp_layer_run(rp_layer *l, rp_pool *pool, const rp_layer_call *call) {
    rp_status status = check_call(l, call);
    if (status == RP_OK && rp_pool_threads(pool) != l->threads) status = RP_BAD_ARGUMENT;
    if (status != RP_OK) return status;
    running r = {l, pool, call, rp_padded_batch(call->B)};
    pthread_mutex_lock(&l->lock);
    status = rp_layer_reserve(l, r.padded_batch);
    if (status == RP_OK && l->parts[0].hh.format.layout == RP_WINDOW && call->B > 1) status = RP_BAD_ARGUMENT;
    if (status == RP_OK) status = rp_pool_run(pool, run_thread, &r);
    pthread_mutex_unlock(&l->lock);
    return status;
}
