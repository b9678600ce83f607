#include "rp_matrix.h"

#include <string.h>

#include "rp_memory.h"

void *rp_matrix_alloc(rp_matrix *matrix, size_t count, size_t size) {
    matrix->bytes += count * size;
    return rp_alloc(count, size);
}

static bool format_is_known(rp_format f) {
    if (f.layout == RP_SELL) return f.lanes == RP_SELL_LANES && f.width == 1 && !f.int8_values;
    if (f.layout == RP_WINDOW) return f.lanes == RP_WINDOW_LANES && f.width == 1 && !f.int8_values;
    if (f.layout != RP_BLOCK) return false;
    if (f.width == 1) return f.lanes == 16 || f.lanes == 8;
    return f.width == 4 && (f.lanes == 8 || f.lanes == 4);
}

static bool rows_are_inside(rp_row_map rows, size_t source_rows, size_t target_rows) {
    for (size_t i = 0; i < rows.len; i++)
        if (rows.source[i] >= source_rows || rows.target[i] >= target_rows) return false;
    return true;
}

rp_status rp_matrix_pack(rp_matrix *matrix, const rp_csr *csr, rp_row_map rows, rp_format format, size_t target_rows) {
    memset(matrix, 0, sizeof *matrix);
    rp_status status = rp_csr_check(csr);
    if (status != RP_OK) return status;
    if (!format_is_known(format) || csr->cols < format.width) return RP_BAD_ARGUMENT;
    if (format.layout != RP_SELL && csr->cols > 65536) return RP_BAD_ARGUMENT;
    if (!rows_are_inside(rows, csr->rows, target_rows)) return RP_BAD_ARGUMENT;
    matrix->format = format;
    matrix->rows = target_rows;
    matrix->cols = csr->cols;
    for (size_t i = 0; i < rows.len; i++)
        matrix->nnz += (size_t)(csr->crow_indices.data[rows.source[i] + 1] - csr->crow_indices.data[rows.source[i]]);
    if (format.layout == RP_SELL) status = rp_pack_sell(matrix, csr, rows);
    if (format.layout == RP_WINDOW) status = rp_pack_window(matrix, csr, rows);
    if (format.layout == RP_BLOCK) status = rp_pack_block(matrix, csr, rows);
    if (status != RP_OK) rp_matrix_free(matrix);
    return status;
}

void rp_matrix_free(rp_matrix *matrix) {
    if (matrix->remainder) rp_matrix_free(matrix->remainder);
    void *owned[] = {matrix->group_start, matrix->row_of_lane, matrix->columns,   matrix->wide_columns, matrix->values,
                     matrix->int8_values, matrix->scales,      matrix->remainder, matrix->window_column};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) rp_free(owned[i]);
    memset(matrix, 0, sizeof *matrix);
}
