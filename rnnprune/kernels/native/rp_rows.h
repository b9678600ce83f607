/* Rows in the order in which a layout wants them. */
#ifndef RP_ROWS_H
#define RP_ROWS_H

#include "rp_matrix.h"

/* One row on its way into a layout: its entries are [begin, end) of the CSR arrays. */
typedef struct {
    uint32_t begin, end, target;
} rp_row;

static inline uint32_t rp_row_length(rp_row row) { return row.end - row.begin; }

/* One entry per row of the map, in its order; free with rp_free. NULL: no memory. */
rp_row *rp_rows_of(const rp_csr *csr, rp_row_map map);

/* Longest first, then by target: equal matrices pack to equal bytes. */
void rp_sort_rows(rp_row *rows, size_t len);

#endif
