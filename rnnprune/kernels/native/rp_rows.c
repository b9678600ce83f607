#include "rp_rows.h"

#include <stdlib.h>

#include "rp_memory.h"

rp_row *rp_rows_of(const rp_csr *csr, rp_row_map map) {
    rp_row *rows = rp_alloc(map.len + 1, sizeof *rows);
    for (size_t i = 0; rows && i < map.len; i++) {
        const int32_t *crow = csr->crow_indices.data + map.source[i];
        rows[i] = (rp_row){(uint32_t)crow[0], (uint32_t)crow[1], map.target[i]};
    }
    return rows;
}

static int longest_first(const void *left, const void *right) {
    const rp_row *a = left, *b = right;
    uint32_t na = rp_row_length(*a), nb = rp_row_length(*b);
    if (na != nb) return na > nb ? -1 : 1;
    return a->target < b->target ? -1 : a->target > b->target;
}

void rp_sort_rows(rp_row *rows, size_t len) {
    if (len > 1) qsort(rows, len, sizeof *rows, longest_first);
}
