/* RP_SELL for one type of column number. The includer sets COLUMN, COLUMNS (the field), PICK8 and SELL(name). */

/* One vector: four sums in flight hide the latency of the multiply-add. */
static void SELL(matvec)(const rp_matrix *a, rp_f32_in x, rp_f32_out y) {
    for (size_t g = 0; g < a->groups; g++) {
        v8f s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        size_t k = a->group_start[g], end = a->group_start[g + 1];
        const float *v = a->values + 8 * k;
        const COLUMN *c = a->COLUMNS + 8 * k;
        for (; k + 4 <= end; k += 4, v += 32, c += 32) {
            s0 += load8(v) * PICK8(x.data, c);
            s1 += load8(v + 8) * PICK8(x.data, c + 8);
            s2 += load8(v + 16) * PICK8(x.data, c + 16);
            s3 += load8(v + 24) * PICK8(x.data, c + 24);
        }
        for (; k < end; k++, v += 8, c += 8) s0 += load8(v) * PICK8(x.data, c);
        s0 = (s0 + s1) + (s2 + s3);
        add_to_rows(y.data, a->row_of_lane + 8 * g, (const float *)&s0, 8);
    }
}

/* `rows` lanes of one chunk, slots k to end, times 16 columns of x: independent sums, so nothing is reduced. */
INLINE void SELL(chunk16)(const rp_matrix *a, size_t k, size_t end, const uint32_t *row_of_lane, size_t lane, size_t rows,
                          const float *x, size_t x_stride, float *y, size_t y_stride) {
    wide sum[8] = {0};
    const float *v = a->values + 8 * k;
    const COLUMN *c = a->COLUMNS + 8 * k + lane;
    for (; k < end; k++, v += 8, c += 8) {
        v8f values = in_register(load8(v));
        UNROLL for (size_t r = 0; r < rows; r++)
            sum[r] = wide_multiply_add(sum[r], wide_splat(values, lane + r), wide_load(x + c[r] * x_stride));
    }
    UNROLL for (size_t r = 0; r < rows; r++)
        if (row_of_lane[lane + r] != RP_NO_ROW) wide_add_to(y + row_of_lane[lane + r] * y_stride, sum[r]);
}

INLINE void SELL(chunk_narrow)(const rp_matrix *a, size_t k, size_t end, const uint32_t *row_of_lane, const float *x,
                               size_t x_stride, float *y, size_t y_stride) {
    narrow sum[8] = {0};
    const float *v = a->values + 8 * k;
    const COLUMN *c = a->COLUMNS + 8 * k;
    for (; k < end; k++, v += 8, c += 8) {
        v8f values = in_register(load8(v));
        UNROLL for (size_t r = 0; r < 8; r++)
            sum[r] = narrow_multiply_add(sum[r], narrow_splat(values, r), narrow_load(x + c[r] * x_stride));
    }
    UNROLL for (size_t r = 0; r < 8; r++)
        if (row_of_lane[r] != RP_NO_ROW) narrow_add_to(y + row_of_lane[r] * y_stride, sum[r]);
}

/* Columns rise along a chunk, so all chunks take their first slots first: while they do, about the same part of x is
 * in use and stays in the L1 cache. Which slots meet in a phase changes the speed only, never the result. */
INLINE void SELL(matmat_strided)(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride,
                                 size_t width) {
    for (size_t j = 0, tile; j < width; j += tile) {
        tile = NARROW == 8 && j + 16 <= width ? 16 : NARROW;
        const size_t phases = (a->cols * tile * sizeof(float) + PHASE_BYTES - 1) / PHASE_BYTES;
        const float *xj = x.data + j;
        float *yj = y.data + j;
        for (size_t phase = 0; phase < phases; phase++) {
            for (size_t g = 0; g < a->groups; g++) {
                const uint32_t *rows = a->row_of_lane + 8 * g;
                size_t start = a->group_start[g], slots = a->group_start[g + 1] - start;
                size_t k = start + slots * phase / phases, end = start + slots * (phase + 1) / phases;
                if (tile == NARROW) SELL(chunk_narrow)(a, k, end, rows, xj, x_stride, yj, y_stride);
                UNROLL for (size_t lane = 0; tile == 16 && lane < 8; lane += ROWS_OF_16)
                    SELL(chunk16)(a, k, end, rows, lane, ROWS_OF_16, xj, x_stride, yj, y_stride);
            }
        }
    }
}

/* The common strides as constants: a multiplication per entry would cost as much as the multiply-add. */
static void SELL(matmat)(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride, size_t width) {
    if (x_stride == 8)
        SELL(matmat_strided)(a, x, 8, y, y_stride, 8);
    else if (x_stride == 16 && width == 16)
        SELL(matmat_strided)(a, x, 16, y, y_stride, 16);
    else if (x_stride == 32)
        SELL(matmat_strided)(a, x, 32, y, y_stride, width);
    else if (x_stride == 64)
        SELL(matmat_strided)(a, x, 64, y, y_stride, width);
    else
        SELL(matmat_strided)(a, x, x_stride, y, y_stride, width);
}
