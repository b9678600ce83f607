#include "rp_product.h"

#include <string.h>

#include "rp_memory.h"
#include "rp_share.h"

struct rp_product {
    size_t rows, cols, threads, bytes;
    rp_format format;
    const rp_kernels *kernels;
    size_t first[RP_MAX_THREADS + 1]; /* rows of each thread */
    rp_matrix *parts;                 /* [threads] */
};

static rp_status pack_part(rp_product *p, const rp_csr *csr, size_t thread, uint32_t *map) {
    size_t first = p->first[thread], len = p->first[thread + 1] - first;
    for (size_t i = 0; i < len; i++) {
        map[i] = (uint32_t)(first + i);
        map[len + i] = (uint32_t)i;
    }
    rp_status status = rp_matrix_pack(&p->parts[thread], csr, (rp_row_map){map, map + len, len}, p->format, len);
    p->bytes += p->parts[thread].bytes;
    return status;
}

static rp_status pack_parts(rp_product *p, const rp_csr *csr) {
    size_t *work = rp_alloc(p->rows, sizeof *work);
    uint32_t *map = rp_alloc(2 * p->rows, sizeof *map);
    p->parts = rp_alloc(p->threads, sizeof *p->parts);
    rp_status status = work && map && p->parts ? RP_OK : RP_NO_MEMORY;
    if (status == RP_OK) {
        const int32_t *crow = csr->crow_indices.data;
        for (size_t r = 0; r < p->rows; r++) work[r] = 1 + (size_t)(crow[r + 1] - crow[r]);
        rp_deal_out(work, p->rows, p->threads, p->first);
    }
    for (size_t t = 0; status == RP_OK && t < p->threads; t++) status = pack_part(p, csr, t, map);
    rp_free(work);
    rp_free(map);
    return status;
}

rp_status rp_product_new(rp_product **product, const rp_csr *csr, rp_format format, const char *isa, size_t threads) {
    const rp_kernels *kernels = rp_kernels_named(isa);
    *product = NULL;
    if (!kernels || threads == 0 || threads > RP_MAX_THREADS) return RP_BAD_ARGUMENT;
    if (format.layout == RP_WINDOW && !kernels->has_window) return RP_BAD_ARGUMENT;
    rp_status status = rp_csr_check(csr);
    if (status != RP_OK) return status;
    rp_product *p = rp_alloc(1, sizeof *p);
    if (!p) return RP_NO_MEMORY;
    p->rows = csr->rows;
    p->cols = csr->cols;
    p->threads = threads;
    p->format = format;
    p->kernels = kernels;
    status = pack_parts(p, csr);
    if (status == RP_OK)
        *product = p;
    else
        rp_product_free(p);
    return status;
}

void rp_product_free(rp_product *p) {
    if (!p) return;
    for (size_t t = 0; p->parts && t < p->threads; t++) rp_matrix_free(&p->parts[t]);
    rp_free(p->parts);
    rp_free(p);
}

typedef struct {
    const rp_product *product;
    rp_f32_in x;
    rp_f32_out y;
    size_t B;
} running;

static void run_thread(void *context, size_t thread) {
    const running *r = context;
    const rp_product *p = r->product;
    size_t first = p->first[thread], rows = p->first[thread + 1] - first;
    rp_f32_out y = {r->y.data + first * r->B, rows * r->B};
    if (rows == 0) return;
    memset(y.data, 0, y.len * sizeof *y.data);
    if (r->B == 1)
        p->kernels->matvec(&p->parts[thread], r->x, y);
    else
        p->kernels->matmat(&p->parts[thread], r->x, r->B, y, r->B, r->B);
}

rp_status rp_product_run(const rp_product *p, rp_pool *pool, rp_f32_in x, rp_f32_out y, size_t B) {
    bool batch = B == 1 || (B && B % RP_BATCH_STEP == 0 && p->format.layout != RP_WINDOW);
    if (!batch || B > INT32_MAX || rp_pool_threads(pool) != p->threads) return RP_BAD_ARGUMENT;
    if (x.len != p->cols * B || y.len != p->rows * B) return RP_BAD_LENGTH;
    running r = {p, x, y, B};
    return rp_pool_run(pool, run_thread, &r);
}

size_t rp_product_bytes(const rp_product *p) { return p->bytes; }
const char *rp_product_isa(const rp_product *p) { return p->kernels->name; }
