#include "rp_layer.h"

#include <string.h>

#include "rp_layer_parts.h"
#include "rp_memory.h"
#include "rp_share.h"

static const size_t gates_of[] = {[RP_RNN_TANH] = 1, [RP_RNN_RELU] = 1, [RP_GRU] = 3, [RP_LSTM] = 4};

/* The GRU's n gate has two sums, because r multiplies only the one from the state (b_hn included). */
static const size_t slots_of[] = {[RP_RNN_TANH] = 1, [RP_RNN_RELU] = 1, [RP_GRU] = 4, [RP_LSTM] = 4};

static size_t slot_of_gate(rp_kind kind, size_t gate, bool from_state) {
    return kind == RP_GRU && gate == 2 && from_state ? 3 : gate;
}

static bool shapes_agree(const rp_layer_spec *s) {
    size_t rows = gates_of[s->kind] * s->hidden_size, out = s->proj_size ? s->proj_size : s->hidden_size;
    bool ih = s->weight_ih.rows == rows && s->weight_ih.cols == s->input_size;
    bool hh = s->weight_hh.rows == rows && s->weight_hh.cols == out;
    bool hr = !s->proj_size || (s->weight_hr.rows == out && s->weight_hr.cols == s->hidden_size);
    bool biases = (s->bias_ih.len == rows || s->bias_ih.len == 0) && (s->bias_hh.len == rows || s->bias_hh.len == 0);
    return ih && hh && hr && biases;
}

static rp_status check_spec(const rp_layer_spec *s, size_t threads) {
    bool known = s->kind >= RP_RNN_TANH && s->kind <= RP_LSTM && threads >= 1 && threads <= RP_MAX_THREADS;
    bool sizes = s->input_size && s->hidden_size && s->hidden_size <= INT32_MAX / 8 && s->proj_size <= s->hidden_size;
    if (!known || !sizes || (s->proj_size && s->kind != RP_LSTM)) return RP_BAD_ARGUMENT;
    /* the input projection is a batch product even at batch 1 */
    if (s->format_ih.layout == RP_WINDOW || s->format_hr.layout == RP_WINDOW) return RP_BAD_ARGUMENT;
    if (!shapes_agree(s)) return RP_BAD_LENGTH;
    rp_status status = rp_csr_check(&s->weight_ih);
    if (status == RP_OK) status = rp_csr_check(&s->weight_hh);
    if (status == RP_OK && s->proj_size) status = rp_csr_check(&s->weight_hr);
    return status;
}

static size_t row_nnz(const rp_csr *csr, size_t row) {
    return (size_t)(csr->crow_indices.data[row + 1] - csr->crow_indices.data[row]);
}

/* Entries a unit owns in all of its gates, plus the activations. */
static void work_of_units(const rp_layer_spec *s, size_t *work) {
    for (size_t u = 0; u < s->hidden_size; u++) {
        work[u] = 8;
        for (size_t row = u; row < s->weight_ih.rows; row += s->hidden_size)
            work[u] += row_nnz(&s->weight_ih, row) + row_nnz(&s->weight_hh, row);
    }
}

static void work_of_outputs(const rp_layer_spec *s, size_t *work) {
    for (size_t row = 0; row < s->proj_size; row++) work[row] = 1 + row_nnz(&s->weight_hr, row);
}

/* The rows of one thread's units, gate by gate. map has room for slots * units entries. */
static rp_row_map gate_rows(const rp_layer *l, const rp_part *part, bool from_state, uint32_t *source, uint32_t *target) {
    size_t len = 0;
    for (size_t gate = 0; gate < gates_of[l->kind]; gate++) {
        for (size_t u = 0; u < part->units; u++, len++) {
            source[len] = (uint32_t)(gate * l->hidden_size + part->first + u);
            target[len] = (uint32_t)(slot_of_gate(l->kind, gate, from_state) * part->padded + u);
        }
    }
    return (rp_row_map){source, target, len};
}

static void add_bias(const rp_layer *l, rp_part *part, rp_f32_in bias, bool from_state) {
    for (size_t gate = 0; bias.len && gate < gates_of[l->kind]; gate++) {
        float *to = part->bias + slot_of_gate(l->kind, gate, from_state) * part->padded;
        for (size_t u = 0; u < part->units; u++) to[u] += bias.data[gate * l->hidden_size + part->first + u];
    }
}

static rp_status pack_projection(const rp_layer *l, rp_part *part, const rp_layer_spec *s, uint32_t *map) {
    for (size_t i = 0; i < part->outs; i++) {
        map[i] = (uint32_t)(part->first_out + i);
        map[part->outs + i] = (uint32_t)i;
    }
    rp_row_map rows = {map, map + part->outs, part->outs};
    return l->proj_size ? rp_matrix_pack(&part->hr, &s->weight_hr, rows, s->format_hr, part->outs) : RP_OK;
}

static rp_status pack_part(const rp_layer *l, rp_part *part, const rp_layer_spec *s) {
    size_t rows = l->slots * part->padded, entries = rows > part->outs ? rows : part->outs;
    uint32_t *map = rp_alloc(2 * entries, sizeof *map);
    part->bias = rp_alloc(rows, sizeof *part->bias);
    rp_status status = map && part->bias ? RP_OK : RP_NO_MEMORY;
    if (status == RP_OK)
        status = rp_matrix_pack(&part->ih, &s->weight_ih, gate_rows(l, part, false, map, map + entries), s->format_ih, rows);
    if (status == RP_OK)
        status = rp_matrix_pack(&part->hh, &s->weight_hh, gate_rows(l, part, true, map, map + entries), s->format_hh, rows);
    if (status == RP_OK) status = pack_projection(l, part, s, map);
    if (status == RP_OK) {
        add_bias(l, part, s->bias_ih, false);
        add_bias(l, part, s->bias_hh, true);
    }
    rp_free(map);
    return status;
}

static rp_status make_parts(rp_layer *l, const rp_layer_spec *s) {
    size_t units[RP_MAX_THREADS + 1], outs[RP_MAX_THREADS + 1];
    size_t *work = rp_alloc(l->hidden_size, sizeof *work); /* proj_size <= hidden_size */
    if (!work) return RP_NO_MEMORY;
    work_of_units(s, work);
    rp_deal_out(work, l->hidden_size, l->threads, units);
    work_of_outputs(s, work);
    rp_deal_out(work, l->proj_size, l->threads, outs);
    rp_free(work);
    for (size_t t = 0; t < l->threads; t++) {
        rp_part *part = &l->parts[t];
        part->first = units[t];
        part->units = units[t + 1] - units[t];
        part->padded = rp_round_up(part->units, RP_SHARE_STEP);
        part->first_out = outs[t];
        part->outs = outs[t + 1] - outs[t];
        rp_status status = pack_part(l, part, s);
        if (status != RP_OK) return status;
        l->bytes += part->ih.bytes + part->hh.bytes + part->hr.bytes;
    }
    return RP_OK;
}

rp_status rp_layer_new(rp_layer **layer, const rp_layer_spec *spec, size_t threads) {
    *layer = NULL;
    rp_status status = check_spec(spec, threads);
    const rp_kernels *kernels = rp_kernels_named(spec->isa);
    if (status == RP_OK && (!kernels || (spec->format_hh.layout == RP_WINDOW && !kernels->has_window)))
        status = RP_BAD_ARGUMENT;
    if (status != RP_OK) return status;
    rp_layer *l = rp_alloc(1, sizeof *l);
    if (!l) return RP_NO_MEMORY;
    pthread_mutex_init(&l->lock, NULL);
    l->kind = spec->kind;
    l->input_size = spec->input_size;
    l->hidden_size = spec->hidden_size;
    l->proj_size = spec->proj_size;
    l->slots = slots_of[spec->kind];
    l->kernels = kernels;
    l->threads = threads;
    l->parts = rp_alloc(threads, sizeof *l->parts);
    status = l->parts ? make_parts(l, spec) : RP_NO_MEMORY;
    if (status == RP_OK)
        *layer = l;
    else
        rp_layer_free(l);
    return status;
}

static void free_buffers(rp_layer *l) {
    float **shared[] = {&l->h[0], &l->h[1], &l->c, &l->unprojected};
    for (size_t i = 0; i < sizeof shared / sizeof *shared; i++) {
        rp_free(*shared[i]);
        *shared[i] = NULL;
    }
    for (size_t t = 0; l->parts && t < l->threads; t++) {
        float **own[] = {&l->parts[t].x, &l->parts[t].gates, &l->parts[t].gates_by_row};
        for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
            rp_free(*own[i]);
            *own[i] = NULL;
        }
    }
    l->capacity = 0;
}

void rp_layer_free(rp_layer *l) {
    if (!l) return;
    free_buffers(l);
    for (size_t t = 0; l->parts && t < l->threads; t++) {
        rp_matrix_free(&l->parts[t].ih);
        rp_matrix_free(&l->parts[t].hh);
        rp_matrix_free(&l->parts[t].hr);
        rp_free(l->parts[t].bias);
    }
    rp_free(l->parts);
    pthread_mutex_destroy(&l->lock);
    rp_free(l);
}

rp_status rp_layer_reserve(rp_layer *l, size_t padded_batch) {
    if (padded_batch <= l->capacity) return RP_OK;
    free_buffers(l);
    size_t columns = padded_batch * rp_steps_of_tile(padded_batch);
    columns = columns < RP_TILE ? RP_TILE : columns; /* batch 1 and a later batch of 2..8 share the buffers */
    size_t units = rp_round_up(l->hidden_size, RP_SHARE_STEP), outs = rp_round_up(rp_output_size(l), RP_SHARE_STEP);
    bool ready = (l->h[0] = rp_alloc(outs * padded_batch, sizeof(float))) != NULL;
    ready &= (l->h[1] = rp_alloc(outs * padded_batch, sizeof(float))) != NULL;
    ready &= (l->c = rp_alloc(units * padded_batch, sizeof(float))) != NULL;
    ready &= (l->unprojected = rp_alloc(l->proj_size ? units * padded_batch : 0, sizeof(float))) != NULL;
    for (size_t t = 0; t < l->threads; t++) {
        rp_part *part = &l->parts[t];
        size_t gates = l->slots * part->padded * columns;
        ready &= (part->x = rp_alloc(l->input_size * columns, sizeof(float))) != NULL;
        ready &= (part->gates = rp_alloc(gates, sizeof(float))) != NULL;
        ready &= (part->gates_by_row = rp_alloc(gates, sizeof(float))) != NULL;
    }
    if (!ready) free_buffers(l);
    if (ready) l->capacity = padded_batch;
    return ready ? RP_OK : RP_NO_MEMORY;
}

size_t rp_layer_bytes(const rp_layer *l) { return l->bytes; }
const char *rp_layer_isa(const rp_layer *l) { return l->kernels->name; }
