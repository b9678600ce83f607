#include "rp_matrix.h"
#include "rp_memory.h"
#include "rp_rows.h"

/* What one entry costs in the SELL remainder, in places of a window: with less the remainder takes time, with more the
 * padding takes bytes (measured on Zen 4). */
#define REMAINDER_COST 3

/* Everything the two passes share. Rows are sorted; row i sits in lane i % 16 of group i / 16. */
typedef struct {
    rp_matrix *m;
    const rp_csr *csr;
    rp_row *rows;
    size_t len;
    int32_t *left_crow; /* [len + 1] rows of the remainder */
    uint16_t *left_columns;
    float *left_values;
    bool counting; /* the first pass, before there is room for the entries */
    uint32_t next[RP_WINDOW_LANES];   /* of the group at hand: the next entry of each lane, */
    uint32_t end[RP_WINDOW_LANES];    /* where its row ends, */
    int32_t left_at[RP_WINDOW_LANES]; /* and where its next entry of the remainder goes */
} packing;

static size_t lanes_of(const packing *p, size_t group) {
    size_t left = p->len - group * RP_WINDOW_LANES;
    return left < RP_WINDOW_LANES ? left : RP_WINDOW_LANES;
}

/* The first entry of the lane from `k` on whose column is at least `column`. */
static uint32_t skip_to(const packing *p, size_t lane, uint32_t k, size_t column) {
    while (k < p->end[lane] && rp_csr_column(p->csr, k) < column) k++;
    return k;
}

/* Where a window may begin: at a whole vector of x, or as far right as it fits. */
static size_t window_at(const packing *p, size_t column) {
    size_t cols = p->m->cols, last = cols > RP_WINDOW_COLUMNS ? cols - RP_WINDOW_COLUMNS : 0;
    size_t start = column / RP_WINDOW_LANES * RP_WINDOW_LANES;
    return start < last ? start : last;
}

/* Entries that a step with this window places, less what those cost that it leaves behind. */
static int gain(const packing *p, size_t lanes, size_t start) {
    int total = 0;
    for (size_t lane = 0; lane < lanes; lane++) {
        uint32_t k = skip_to(p, lane, p->next[lane], start), past = k;
        while (past < k + RP_WINDOW_SLOTS && past < p->end[lane] &&
               rp_csr_column(p->csr, past) < start + RP_WINDOW_COLUMNS)
            past++;
        total += (int)(past - k) - REMAINDER_COST * (int)(k - p->next[lane]);
    }
    return total;
}

/* The window of the next step: it begins at the group's leftmost entry, or a little later where that leaves only a few
 * entries to the remainder. False when nothing is left. */
static bool best_window(const packing *p, size_t lanes, size_t *best) {
    size_t first = SIZE_MAX;
    for (size_t lane = 0; lane < lanes; lane++) {
        if (p->next[lane] == p->end[lane]) continue;
        size_t column = rp_csr_column(p->csr, p->next[lane]);
        first = column < first ? column : first;
    }
    if (first == SIZE_MAX) return false;
    *best = window_at(p, first);
    int highest = gain(p, lanes, *best);
    for (size_t column = first + RP_WINDOW_LANES; column < first + RP_WINDOW_COLUMNS; column += RP_WINDOW_LANES) {
        int found = gain(p, lanes, window_at(p, column));
        if (found <= highest) continue;
        highest = found;
        *best = window_at(p, column);
    }
    return true;
}

static void leave(packing *p, size_t row, size_t lane) {
    uint32_t k = p->next[lane]++;
    if (p->counting) {
        p->left_crow[row + 1]++;
        return;
    }
    int32_t at = p->left_at[lane]++;
    p->left_columns[at] = (uint16_t)rp_csr_column(p->csr, k);
    p->left_values[at] = p->csr->values.data[k];
}

static void place(packing *p, size_t step, size_t slot, size_t lane, size_t start) {
    uint32_t k = p->next[lane]++;
    if (p->counting) return;
    size_t at = (step * RP_WINDOW_SLOTS + slot) * RP_WINDOW_LANES + lane;
    p->m->values[at] = p->csr->values.data[k];
    p->m->window_column[at] = (uint8_t)(rp_csr_column(p->csr, k) - start);
}

static void walk_group(packing *p, size_t group) {
    size_t lanes = lanes_of(p, group), start;
    for (size_t lane = 0; lane < lanes; lane++) {
        size_t row = group * RP_WINDOW_LANES + lane;
        p->next[lane] = p->rows[row].begin;
        p->end[lane] = p->rows[row].end;
        p->left_at[lane] = p->left_crow[row];
    }
    for (; best_window(p, lanes, &start); p->m->slots++) {
        if (!p->counting) p->m->columns[p->m->slots] = (uint16_t)start;
        for (size_t lane = 0; lane < lanes; lane++) {
            uint32_t first = skip_to(p, lane, p->next[lane], start);
            while (p->next[lane] < first) leave(p, group * RP_WINDOW_LANES + lane, lane);
            uint32_t past = skip_to(p, lane, first, start + RP_WINDOW_COLUMNS);
            for (size_t slot = 0; slot < RP_WINDOW_SLOTS && p->next[lane] < past; slot++)
                place(p, p->m->slots, slot, lane, start);
        }
    }
    p->m->group_start[group + 1] = (uint32_t)p->m->slots;
}

static void walk(packing *p, bool counting) {
    p->counting = counting;
    p->m->slots = 0;
    for (size_t group = 0; group < p->m->groups; group++) walk_group(p, group);
}

static rp_status pack_remainder(packing *p, uint32_t *source, uint32_t *target) {
    rp_matrix *m = p->m;
    size_t left = (size_t)p->left_crow[p->len];
    rp_csr csr = {.rows = p->len,
                  .cols = m->cols,
                  .crow_indices = {p->left_crow, p->len + 1},
                  .col_indices = {p->left_columns, NULL, left},
                  .values = {p->left_values, left}};
    for (size_t i = 0; i < p->len; i++) {
        source[i] = (uint32_t)i;
        target[i] = p->rows[i].target;
    }
    rp_format sell = {RP_SELL, RP_SELL_LANES, 1, false};
    rp_status status = rp_matrix_pack(m->remainder, &csr, (rp_row_map){source, target, p->len}, sell, m->rows);
    m->bytes += m->remainder->bytes;
    return status;
}

static rp_status pack(packing *p) {
    rp_matrix *m = p->m;
    size_t lanes = m->groups * RP_WINDOW_LANES;
    m->group_start = rp_matrix_alloc(m, m->groups + 1, sizeof *m->group_start);
    m->row_of_lane = rp_matrix_alloc(m, lanes, sizeof *m->row_of_lane);
    m->remainder = rp_alloc(1, sizeof *m->remainder);
    if (!m->group_start || !m->row_of_lane || !m->remainder) return RP_NO_MEMORY;
    for (size_t i = 0; i < lanes; i++) m->row_of_lane[i] = i < p->len ? p->rows[i].target : RP_NO_ROW;
    walk(p, true);
    for (size_t i = 0; i < p->len; i++) p->left_crow[i + 1] += p->left_crow[i];
    size_t places = m->slots * RP_WINDOW_SLOTS * RP_WINDOW_LANES, left = (size_t)p->left_crow[p->len];
    m->values = rp_matrix_alloc(m, places, sizeof *m->values);
    m->window_column = rp_matrix_alloc(m, places, sizeof *m->window_column);
    m->columns = rp_matrix_alloc(m, m->slots, sizeof *m->columns);
    p->left_columns = rp_alloc(left, sizeof *p->left_columns);
    p->left_values = rp_alloc(left, sizeof *p->left_values);
    uint32_t *map = rp_alloc(2 * p->len, sizeof *map);
    bool ready = m->values && m->window_column && m->columns && p->left_columns && p->left_values && map;
    if (ready) walk(p, false);
    rp_status status = ready ? pack_remainder(p, map, map + p->len) : RP_NO_MEMORY;
    rp_free(map);
    return status;
}

rp_status rp_pack_window(rp_matrix *m, const rp_csr *csr, rp_row_map map) {
    packing p = {.m = m, .csr = csr, .len = map.len, .rows = rp_rows_of(csr, map)};
    m->groups = (map.len + RP_WINDOW_LANES - 1) / RP_WINDOW_LANES;
    p.left_crow = rp_alloc(map.len + 1, sizeof *p.left_crow);
    bool ready = p.rows && p.left_crow;
    if (ready) rp_sort_rows(p.rows, map.len);
    rp_status status = ready ? pack(&p) : RP_NO_MEMORY;
    void *owned[] = {p.rows, p.left_crow, p.left_columns, p.left_values};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) rp_free(owned[i]);
    return status;
}
