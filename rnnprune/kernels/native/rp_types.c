#include "rp_types.h"

const char *rp_status_text(rp_status status) {
    switch (status) {
    case RP_OK: return "ok";
    case RP_NO_MEMORY: return "out of memory";
    case RP_BAD_CSR: return "malformed CSR matrix: pointers must rise from 0 to nnz and columns must rise within a row and lie in [0, cols)";
    case RP_BAD_LENGTH: return "a buffer is shorter than the shapes ask for";
    case RP_BAD_ARGUMENT: return "an argument is out of range";
    case RP_NO_THREAD: return "the system refused to start a thread";
    }
    return "unknown status";
}

static bool lengths_agree(const rp_csr *csr) {
    size_t nnz = csr->values.len;
    bool one_index_type = (csr->col_indices.u16 != NULL) != (csr->col_indices.i32 != NULL);
    return csr->crow_indices.len == csr->rows + 1 && csr->col_indices.len == nnz && (one_index_type || nnz == 0) &&
           nnz <= INT32_MAX && csr->rows <= INT32_MAX && csr->cols <= INT32_MAX;
}

static bool row_is_sound(const rp_csr *csr, size_t begin, size_t end) {
    for (size_t k = begin; k < end; k++) {
        size_t column = rp_csr_column(csr, k);
        if (column >= csr->cols || (k > begin && column <= rp_csr_column(csr, k - 1))) return false;
    }
    return true;
}

rp_status rp_csr_check(const rp_csr *csr) {
    if (!lengths_agree(csr)) return RP_BAD_CSR;
    const int32_t *crow = csr->crow_indices.data;
    if (crow[0] != 0 || (size_t)(uint32_t)crow[csr->rows] != csr->values.len) return RP_BAD_CSR;
    for (size_t r = 0; r < csr->rows; r++)
        if (crow[r] > crow[r + 1]) return RP_BAD_CSR;
    for (size_t r = 0; r < csr->rows; r++)
        if (!row_is_sound(csr, (size_t)crow[r], (size_t)crow[r + 1])) return RP_BAD_CSR;
    return RP_OK;
}
