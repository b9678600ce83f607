/* RP_BLOCK: dense blocks of lanes x width, no index per element and no gather. Every function is instantiated with
 * constant lanes, width and int8. */

/* Vector number n of the stream. int8 values come four vectors to a quad: byte p of word l is lane l of vector p, so
 * that two shifts and one conversion decode them (GCC 12 turns a plain int8 conversion into scalar code). */
INLINE wide values16(const rp_matrix *a, size_t n, bool int8) {
    return int8 ? wide_of_bytes(a->int8_values + n / 4 * 64, (int)(n % 4)) : wide_load(a->values + 16 * n);
}

INLINE v8f values8(const rp_matrix *a, size_t n, bool int8) {
    if (!int8) return load8(a->values + 8 * n);
    v8i words = *(const v8i *)(a->int8_values + n / 4 * 32);
    return __builtin_convertvector(words << (int)(24 - 8 * (n % 4)) >> 24, v8f);
}

INLINE void finish(const rp_matrix *a, size_t g, size_t lanes, bool int8, float *sum, float *y) {
    if (int8)
        for (size_t l = 0; l < lanes; l++) sum[l] *= a->scales[g * lanes + l];
    add_to_rows(y, a->row_of_lane + g * lanes, sum, lanes);
}

/* 16x1 */
INLINE void matvec16(const rp_matrix *a, const float *x, float *y, bool int8) {
    for (size_t g = 0; g < a->groups; g++) {
        wide sum[4] = {0};
        float row_sum[16];
        size_t k = a->group_start[g], end = a->group_start[g + 1];
        for (; k + 4 <= end; k += 4)
            UNROLL for (size_t u = 0; u < 4; u++) {
                wide values = values16(a, int8 ? k / 4 * 4 + u : k + u, int8);
                sum[u] = wide_multiply_add(sum[u], values, wide_all(x[a->columns[k + u]]));
            }
        for (; k < end; k++) sum[0] = wide_multiply_add(sum[0], values16(a, k, int8), wide_all(x[a->columns[k]]));
        wide_store(row_sum, wide_plus(wide_plus(sum[0], sum[1]), wide_plus(sum[2], sum[3])));
        finish(a, g, 16, int8, row_sum, y);
    }
}

/* 8x1, 8x4: a vector is one column of a block */
INLINE void matvec8(const rp_matrix *a, const float *x, float *y, size_t width, bool int8) {
    const size_t unroll = 4 / width;
    for (size_t g = 0; g < a->groups; g++) {
        v8f sum[4] = {0};
        size_t k = a->group_start[g], end = a->group_start[g + 1];
        for (; k + unroll <= end; k += unroll)
            UNROLL for (size_t u = 0; u < 4; u++)
                sum[u] += values8(a, int8 ? k * width / 4 * 4 + u : k * width + u, int8) *
                          x[a->columns[k + u / width] + u % width];
        for (; k < end; k++)
            UNROLL for (size_t c = 0; c < width; c++) sum[c] += values8(a, k * width + c, int8) * x[a->columns[k] + c];
        sum[0] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        finish(a, g, 8, int8, (float *)&sum[0], y);
    }
}

/* 4x4: columns 0 and 1 of a block make one vector, 2 and 3 another, each x repeated for its four rows */
INLINE void block4(const rp_matrix *a, size_t k, size_t n, const float *x, bool int8, v8f *low, v8f *high) {
    const float *p = x + a->columns[k];
    v8f xs = {p[0], p[1], p[2], p[3], p[0], p[1], p[2], p[3]};
    *low += values8(a, n, int8) * __builtin_shufflevector(xs, xs, 0, 0, 0, 0, 5, 5, 5, 5);
    *high += values8(a, n + 1, int8) * __builtin_shufflevector(xs, xs, 2, 2, 2, 2, 7, 7, 7, 7);
}

INLINE void matvec4(const rp_matrix *a, const float *x, float *y, bool int8) {
    for (size_t g = 0; g < a->groups; g++) {
        v8f sum[4] = {0};
        size_t k = a->group_start[g], end = a->group_start[g + 1];
        for (; k + 2 <= end; k += 2) {
            size_t n = int8 ? k / 2 * 4 : 2 * k; /* k is even for int8; said so that the planes become constants */
            block4(a, k, n, x, int8, &sum[0], &sum[1]);
            block4(a, k + 1, n + 2, x, int8, &sum[2], &sum[3]);
        }
        if (k < end) block4(a, k, 2 * k, x, int8, &sum[0], &sum[1]);
        v8f total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        v4f rows = __builtin_shufflevector(total, total, 0, 1, 2, 3) + __builtin_shufflevector(total, total, 4, 5, 6, 7);
        finish(a, g, 4, int8, (float *)&rows, y);
    }
}

/* The values of column c of block k from `lane` on; int8 values are decoded a vector at a time into `decoded`. */
INLINE const float *block_values(const rp_matrix *a, size_t at, size_t lanes, bool int8, float *decoded) {
    const size_t size = lanes == 16 ? 16 : 8;
    if (!int8) return a->values + at;
    if (lanes == 16)
        wide_store(decoded, values16(a, at / size, true));
    else
        store8(decoded, values8(a, at / size, true));
    return decoded + at % size;
}

/* `rows` lanes of a group from `lane` on, times 8 or 16 columns of x: one load of x serves all of them. */
#define DEFINE_BLOCK_TILE(name, vector, load, splat, multiply_add, scale_by, add_to)                                \
    INLINE void name(const rp_matrix *a, size_t g, size_t lane, size_t rows, size_t lanes, size_t width, bool int8, \
                     const float *x, size_t x_stride, float *y, size_t y_stride) {                                  \
        vector sum[8] = {0};                                                                                        \
        float decoded[16];                                                                                          \
        for (size_t k = a->group_start[g]; k < a->group_start[g + 1]; k++) {                                        \
            UNROLL for (size_t c = 0; c < width; c++) {                                                             \
                vector xs = load(x + (a->columns[k] + c) * x_stride);                                               \
                const float *v = block_values(a, (k * width + c) * lanes, lanes, int8, decoded) + lane;             \
                UNROLL for (size_t r = 0; r < rows; r++) sum[r] = multiply_add(sum[r], splat(v[r]), xs);            \
            }                                                                                                       \
        }                                                                                                           \
        UNROLL for (size_t r = 0; r < rows; r++) {                                                                  \
            uint32_t row = a->row_of_lane[g * lanes + lane + r];                                                    \
            if (row == RP_NO_ROW) continue;                                                                         \
            add_to(y + row * y_stride, scale_by(sum[r], splat(int8 ? a->scales[g * lanes + lane + r] : 1.0f)));     \
        }                                                                                                           \
    }
DEFINE_BLOCK_TILE(block_tile_narrow, narrow, narrow_load, narrow_all, narrow_multiply_add, narrow_times, narrow_add_to)
DEFINE_BLOCK_TILE(block_tile16, wide, wide_load, wide_all, wide_multiply_add, wide_times, wide_add_to)

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

INLINE void block_matmat(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride, size_t total,
                         size_t lanes, size_t width, bool int8) {
    const size_t rows16 = SMALLER(lanes, (size_t)ROWS_OF_16), rows8 = SMALLER(lanes, (size_t)8);
    size_t j = 0;
    for (; NARROW == 8 && j + 16 <= total; j += 16)
        for (size_t g = 0; g < a->groups; g++)
            for (size_t lane = 0; lane < lanes; lane += rows16)
                block_tile16(a, g, lane, rows16, lanes, width, int8, x.data + j, x_stride, y.data + j, y_stride);
    for (; j < total; j += NARROW)
        for (size_t g = 0; g < a->groups; g++)
            for (size_t lane = 0; lane < lanes; lane += rows8)
                block_tile_narrow(a, g, lane, rows8, lanes, width, int8, x.data + j, x_stride, y.data + j, y_stride);
}

/* Calls call(lanes, width, int8) with constants. */
#define FOR_BLOCK_SHAPE(f, call)                             \
    do {                                                     \
        if ((f).lanes == 16 && !(f).int8_values) call(16, 1, false); \
        else if ((f).lanes == 16) call(16, 1, true);         \
        else if ((f).lanes == 4 && !(f).int8_values) call(4, 4, false); \
        else if ((f).lanes == 4) call(4, 4, true);           \
        else if ((f).width == 4 && !(f).int8_values) call(8, 4, false); \
        else if ((f).width == 4) call(8, 4, true);           \
        else if (!(f).int8_values) call(8, 1, false);        \
        else call(8, 1, true);                               \
    } while (0)

#define MATVEC(lanes, width, int8)                                          \
    do {                                                                    \
        if ((lanes) == 16) matvec16(a, x.data, y.data, int8);               \
        else if ((lanes) == 8) matvec8(a, x.data, y.data, width, int8);     \
        else matvec4(a, x.data, y.data, int8);                              \
    } while (0)
#define MATMAT(lanes, width, int8) block_matmat(a, x, x_stride, y, y_stride, total, lanes, width, int8)

static void block_matvec(const rp_matrix *a, rp_f32_in x, rp_f32_out y) { FOR_BLOCK_SHAPE(a->format, MATVEC); }

static void block_matmat_any(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride, size_t total) {
    FOR_BLOCK_SHAPE(a->format, MATMAT);
}
