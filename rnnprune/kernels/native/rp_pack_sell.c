#include "rp_matrix.h"
#include "rp_memory.h"
#include "rp_rows.h"

static rp_status allocate(rp_matrix *m, const rp_row *rows, size_t len) {
    m->groups = (len + RP_SELL_LANES - 1) / RP_SELL_LANES;
    m->group_start = rp_matrix_alloc(m, m->groups + 1, sizeof *m->group_start);
    m->row_of_lane = rp_matrix_alloc(m, m->groups * RP_SELL_LANES, sizeof *m->row_of_lane);
    if (!m->group_start || !m->row_of_lane) return RP_NO_MEMORY;
    for (size_t g = 0; g < m->groups; g++) {
        m->slots += rp_row_length(rows[g * RP_SELL_LANES]); /* the longest of the group comes first */
        if (m->slots >= UINT32_MAX) return RP_BAD_ARGUMENT;
        m->group_start[g + 1] = (uint32_t)m->slots;
    }
    size_t entries = m->slots * RP_SELL_LANES;
    m->values = rp_matrix_alloc(m, entries, sizeof *m->values);
    if (m->cols > 65536)
        m->wide_columns = rp_matrix_alloc(m, entries, sizeof *m->wide_columns);
    else
        m->columns = rp_matrix_alloc(m, entries, sizeof *m->columns);
    return m->values && (m->columns || m->wide_columns) ? RP_OK : RP_NO_MEMORY;
}

static void set_column(rp_matrix *m, size_t at, size_t column) {
    if (m->columns)
        m->columns[at] = (uint16_t)column;
    else
        m->wide_columns[at] = (uint32_t)column;
}

/* Padding repeats the row's last column with value 0, so that a NaN in x reaches no row it would not reach anyway. */
static void fill_lane(rp_matrix *m, const rp_csr *csr, rp_row row, size_t group, size_t lane) {
    size_t column = 0, first = m->group_start[group], slots = m->group_start[group + 1] - first;
    m->row_of_lane[group * RP_SELL_LANES + lane] = row.target;
    for (size_t s = 0; s < slots; s++) {
        size_t at = (first + s) * RP_SELL_LANES + lane;
        if (row.begin + s < row.end) {
            column = rp_csr_column(csr, row.begin + s);
            m->values[at] = csr->values.data[row.begin + s];
        }
        set_column(m, at, column);
    }
}

rp_status rp_pack_sell(rp_matrix *m, const rp_csr *csr, rp_row_map map) {
    rp_row *rows = rp_rows_of(csr, map);
    if (!rows) return RP_NO_MEMORY;
    rp_sort_rows(rows, map.len);
    rp_status status = allocate(m, rows, map.len);
    for (size_t i = 0; status == RP_OK && i < m->groups * RP_SELL_LANES; i++) {
        rp_row row = i < map.len ? rows[i] : (rp_row){0, 0, RP_NO_ROW};
        fill_lane(m, csr, row, i / RP_SELL_LANES, i % RP_SELL_LANES);
    }
    rp_free(rows);
    return status;
}
