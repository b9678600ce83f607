#include "rp_matrix.h"
#include "rp_memory.h"
#include "rp_rows.h"

/* What one entry costs in the SELL remainder, in units of one 16-lane slot of a window (from a profile on Zen 4). */
#define REMAINDER_COST 0.25

/* Everything the two passes share. Rows are sorted; row i sits in lane i % 16 of group i / 16. */
typedef struct {
    rp_matrix *m;
    const rp_csr *csr;
    rp_row *rows;
    size_t len, windows, next_slot;
    uint32_t *cursor;  /* [len] next entry of each row */
    int32_t *left_crow; /* [len + 1] rows of the remainder */
    int32_t *left_next; /* [len] where the row's next remainder entry goes */
    uint16_t *left_columns;
    float *left_values;
} packing;

static size_t entries_in_window(const packing *p, size_t row, size_t window) {
    uint32_t k = p->cursor[row];
    while (k < p->rows[row].end && rp_csr_column(p->csr, k) < (window + 1) * RP_WINDOW_COLUMNS) k++;
    return k - p->cursor[row];
}

/* The number of slots after which what is left over is cheaper in the remainder. */
static size_t best_slots(const size_t *count) {
    size_t best = 0, longest = 0;
    double lowest = 0;
    for (size_t lane = 0; lane < RP_WINDOW_LANES; lane++) longest = count[lane] > longest ? count[lane] : longest;
    for (size_t slots = 0; slots <= longest; slots++) {
        size_t left = 0;
        for (size_t lane = 0; lane < RP_WINDOW_LANES; lane++) left += count[lane] > slots ? count[lane] - slots : 0;
        double cost = (double)slots + REMAINDER_COST * (double)left;
        if (slots == 0 || cost < lowest) {
            lowest = cost;
            best = slots;
        }
    }
    return best;
}

static void count_tile(packing *p, size_t group, size_t window, size_t at) {
    size_t count[RP_WINDOW_LANES] = {0};
    for (size_t lane = 0; lane < RP_WINDOW_LANES && group * RP_WINDOW_LANES + lane < p->len; lane++)
        count[lane] = entries_in_window(p, group * RP_WINDOW_LANES + lane, window);
    size_t slots = best_slots(count);
    p->m->slots_of[at] = (uint8_t)slots;
    p->m->slots += slots;
    for (size_t lane = 0; lane < RP_WINDOW_LANES && group * RP_WINDOW_LANES + lane < p->len; lane++) {
        size_t row = group * RP_WINDOW_LANES + lane;
        p->left_crow[row + 1] += (int32_t)(count[lane] > slots ? count[lane] - slots : 0);
        p->cursor[row] += (uint32_t)count[lane];
    }
}

static void place(packing *p, size_t row, size_t first_slot, size_t slots, size_t window, size_t count) {
    size_t lane = row % RP_WINDOW_LANES;
    for (size_t s = 0; s < count; s++) {
        uint32_t k = p->cursor[row]++;
        size_t column = rp_csr_column(p->csr, k);
        if (s < slots) {
            size_t at = (first_slot + s) * RP_WINDOW_LANES + lane;
            p->m->values[at] = p->csr->values.data[k];
            p->m->window_column[at] = (uint8_t)(column - window * RP_WINDOW_COLUMNS);
        } else {
            int32_t at = p->left_next[row]++;
            p->left_columns[at] = (uint16_t)column;
            p->left_values[at] = p->csr->values.data[k];
        }
    }
}

static void fill_tile(packing *p, size_t group, size_t window, size_t at) {
    size_t slots = p->m->slots_of[at];
    for (size_t lane = 0; lane < RP_WINDOW_LANES && group * RP_WINDOW_LANES + lane < p->len; lane++) {
        size_t row = group * RP_WINDOW_LANES + lane;
        place(p, row, p->next_slot, slots, window, entries_in_window(p, row, window));
    }
    p->next_slot += slots;
}

/* Fewest slots first, so that the kernel's inner loop keeps its length and its branch can be foreseen. */
static void sort_by_slots(uint8_t *slots, uint8_t *group, size_t len) {
    for (size_t i = 1; i < len; i++) {
        uint8_t s = slots[i], g = group[i];
        size_t j = i;
        for (; j > 0 && slots[j - 1] > s; j--) {
            slots[j] = slots[j - 1];
            group[j] = group[j - 1];
        }
        slots[j] = s;
        group[j] = g;
    }
}

typedef void (*tile_visitor)(packing *, size_t batch, size_t groups, size_t window, size_t at);

static void count_tiles(packing *p, size_t batch, size_t groups, size_t window, size_t at) {
    for (size_t g = 0; g < groups; g++) {
        count_tile(p, batch + g, window, at + g);
        p->m->group_of[at + g] = (uint8_t)g;
    }
    sort_by_slots(p->m->slots_of + at, p->m->group_of + at, groups);
}

static void fill_tiles(packing *p, size_t batch, size_t groups, size_t window, size_t at) {
    for (size_t i = 0; i < groups; i++) fill_tile(p, batch + p->m->group_of[at + i], window, at + i);
}

/* The order in which the kernel walks: batches of groups, windows, groups. */
static void walk(packing *p, tile_visitor visit) {
    for (size_t i = 0; i < p->len; i++) p->cursor[i] = p->rows[i].begin;
    for (size_t batch = 0; batch < p->m->groups; batch += RP_WINDOW_BATCH) {
        size_t left = p->m->groups - batch, groups = left < RP_WINDOW_BATCH ? left : RP_WINDOW_BATCH;
        for (size_t window = 0; window < p->windows; window++)
            visit(p, batch, groups, window, batch * p->windows + window * groups);
    }
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
    m->slots_of = rp_matrix_alloc(m, m->groups * p->windows, sizeof *m->slots_of);
    m->group_of = rp_matrix_alloc(m, m->groups * p->windows, sizeof *m->group_of);
    m->row_of_lane = rp_matrix_alloc(m, lanes, sizeof *m->row_of_lane);
    m->remainder = rp_alloc(1, sizeof *m->remainder);
    if (!m->slots_of || !m->group_of || !m->row_of_lane || !m->remainder) return RP_NO_MEMORY;
    for (size_t i = 0; i < lanes; i++) m->row_of_lane[i] = i < p->len ? p->rows[i].target : RP_NO_ROW;
    walk(p, count_tiles);
    for (size_t i = 0; i < p->len; i++) p->left_crow[i + 1] += p->left_crow[i];
    for (size_t i = 0; i < p->len; i++) p->left_next[i] = p->left_crow[i];
    m->values = rp_matrix_alloc(m, m->slots * RP_WINDOW_LANES, sizeof *m->values);
    m->window_column = rp_matrix_alloc(m, m->slots * RP_WINDOW_LANES, sizeof *m->window_column);
    p->left_columns = rp_alloc((size_t)p->left_crow[p->len], sizeof *p->left_columns);
    p->left_values = rp_alloc((size_t)p->left_crow[p->len], sizeof *p->left_values);
    uint32_t *map = rp_alloc(2 * p->len, sizeof *map);
    bool ready = m->values && m->window_column && p->left_columns && p->left_values && map;
    if (ready) walk(p, fill_tiles);
    rp_status status = ready ? pack_remainder(p, map, map + p->len) : RP_NO_MEMORY;
    rp_free(map);
    return status;
}

rp_status rp_pack_window(rp_matrix *m, const rp_csr *csr, rp_row_map map) {
    packing p = {.m = m, .csr = csr, .len = map.len, .rows = rp_rows_of(csr, map)};
    p.windows = (csr->cols + RP_WINDOW_COLUMNS - 1) / RP_WINDOW_COLUMNS;
    m->groups = (map.len + RP_WINDOW_LANES - 1) / RP_WINDOW_LANES;
    p.cursor = rp_alloc(map.len, sizeof *p.cursor);
    p.left_crow = rp_alloc(map.len + 1, sizeof *p.left_crow);
    p.left_next = rp_alloc(map.len, sizeof *p.left_next);
    bool ready = p.rows && p.cursor && p.left_crow && p.left_next;
    if (ready) rp_sort_rows(p.rows, map.len);
    rp_status status = ready ? pack(&p) : RP_NO_MEMORY;
    void *owned[] = {p.rows, p.cursor, p.left_crow, p.left_next, p.left_columns, p.left_values};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) rp_free(owned[i]);
    return status;
}
