/* y = A x with the rows shared out to threads. */
#ifndef RP_PRODUCT_H
#define RP_PRODUCT_H

#include "rp_kernels.h"
#include "rp_pool.h"

typedef struct rp_product rp_product;

rp_status rp_product_new(rp_product **product, const rp_csr *csr, rp_format format, const char *isa, size_t threads);
void rp_product_free(rp_product *product);

/* x [cols, B], y [rows, B]; B is 1 or a multiple of RP_BATCH_STEP (RP_WINDOW: 1 only). May be called from several
 * threads at once: it changes nothing but y. */
rp_status rp_product_run(const rp_product *product, rp_pool *pool, rp_f32_in x, rp_f32_out y, size_t B);

size_t rp_product_bytes(const rp_product *product);
const char *rp_product_isa(const rp_product *product);

#endif
