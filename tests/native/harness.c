/* The engine without Python: products and layers beside plain loops in double precision, on every instruction set that
 * runs here, with 1 to 4 threads, and from several callers at once. Built by `make sanitize` with AddressSanitizer and
 * UndefinedBehaviorSanitizer, by `make sanitize-threads` with ThreadSanitizer. Ends with 0 where all agree. */
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rp_layer.h"
#include "rp_product.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define NEED(ok, ...) ((ok) ? (void)0 : fail(__LINE__, __VA_ARGS__))

static const char *const ISAS[] = {"baseline", "avx2", "avx512"};
static const rp_format FORMATS[] = {
    {RP_SELL, 8, 1, false}, {RP_WINDOW, 16, 1, false}, {RP_BLOCK, 16, 1, false}, {RP_BLOCK, 8, 1, false},
    {RP_BLOCK, 8, 4, false}, {RP_BLOCK, 4, 4, false}, {RP_BLOCK, 16, 1, true}, {RP_BLOCK, 8, 4, true},
};
static atomic_ulong checks;

static void fail(int line, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "line %d: ", line);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

/* A matrix with its dense twin; all arrays exactly as long as needed, so that a read beyond one is seen. */
typedef struct {
    size_t rows, cols;
    float *dense, *values;
    int32_t *crow, *col32;
    uint16_t *col16;
    rp_csr csr;
} sparse;

static void *need_memory(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    NEED(memory, "no memory");
    return memory;
}

static float *random_floats(size_t count, unsigned *seed) {
    float *x = need_memory(count, sizeof *x);
    for (size_t i = 0; i < count; i++) x[i] = (float)rand_r(seed) / (float)RAND_MAX - 0.5f;
    return x;
}

/* One nonzero in `every` blocks of 8 x 4; row 1 is empty where there is one. Wide matrices use int32 columns. */
static sparse make_sparse(size_t rows, size_t cols, unsigned every, unsigned *seed) {
    sparse m = {.rows = rows, .cols = cols, .dense = random_floats(rows * cols, seed)};
    size_t nnz = 0, across = cols / 4 + 1;
    uint8_t *kept = need_memory((rows / 8 + 1) * across, 1);
    for (size_t i = 0; i < (rows / 8 + 1) * across; i++) kept[i] = (unsigned)rand_r(seed) % every == 0;
    for (size_t i = 0; i < rows * cols; i++) {
        if (!kept[i / cols / 8 * across + i % cols / 4] || i / cols == 1) m.dense[i] = 0;
        nnz += m.dense[i] != 0;
    }
    free(kept);
    m.crow = need_memory(rows + 1, sizeof *m.crow);
    m.values = need_memory(nnz, sizeof *m.values);
    m.col32 = need_memory(nnz, sizeof *m.col32);
    m.col16 = need_memory(nnz, sizeof *m.col16);
    for (size_t r = 0, k = 0; r < rows; m.crow[++r] = (int32_t)k)
        for (size_t c = 0; c < cols; c++)
            if (m.dense[r * cols + c] != 0) {
                m.values[k] = m.dense[r * cols + c];
                m.col16[k] = (uint16_t)c;
                m.col32[k++] = (int32_t)c;
            }
    bool wide = cols > 65536;
    m.csr = (rp_csr){rows, cols, {m.crow, rows + 1}, {wide ? NULL : m.col16, wide ? m.col32 : NULL, nnz}, {m.values, nnz}};
    return m;
}

static void free_sparse(sparse *m) {
    free(m->dense), free(m->values), free(m->crow), free(m->col32), free(m->col16);
}

static void check_product(const sparse *m, rp_format format, const char *isa, rp_pool *pool, size_t B, unsigned *seed) {
    rp_product *product;
    rp_status status = rp_product_new(&product, &m->csr, format, isa, rp_pool_threads(pool));
    NEED(status == RP_OK, "%s %d: %s", isa, (int)format.layout, rp_status_text(status));
    float *x = random_floats(m->cols * B, seed), *y = random_floats(m->rows * B, seed);
    status = rp_product_run(product, pool, (rp_f32_in){x, m->cols * B}, (rp_f32_out){y, m->rows * B}, B);
    NEED(status == RP_OK, "%s", rp_status_text(status));
    for (size_t r = 0; r < m->rows; r++)
        for (size_t b = 0; b < B; b++) {
            double sum = 0, bound = 0, largest = 0;
            for (size_t c = 0; c < m->cols; c++) {
                double w = m->dense[r * m->cols + c];
                sum += w * x[c * B + b];
                largest = fmax(largest, fabs(w));
                bound += (w != 0) * fabs((double)x[c * B + b]);
            }
            double allowed = (format.int8_values ? largest / 253 : 2e-6 * largest) * bound + 1e-12;
            NEED(fabs(y[r * B + b] - sum) <= allowed, "%s: %zu x %zu, row %zu: %g, expected %g", isa, m->rows, m->cols, r,
                 (double)y[r * B + b], sum);
        }
    checks++;
    free(x), free(y);
    rp_product_free(product);
}

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }

/* One step of an LSTM or GRU in double precision; w is [G H, I], u [G H, H], h and c are changed. */
static void plain_step(rp_kind kind, size_t I, size_t H, const float *w, const float *u, const float *b, const float *x,
                       double *h, double *c) {
    double *in = need_memory(4 * H, sizeof *in), *rec = need_memory(4 * H, sizeof *rec);
    for (size_t r = 0; r < (kind == RP_LSTM ? 4 : 3) * H; r++) {
        in[r] = b[r];
        for (size_t i = 0; i < I; i++) in[r] += (double)w[r * I + i] * x[i];
        for (size_t i = 0; i < H; i++) rec[r] += (double)u[r * H + i] * h[i];
    }
    for (size_t j = 0; j < H; j++)
        if (kind == RP_LSTM) {
            c[j] = sigmoid(in[H + j] + rec[H + j]) * c[j] + sigmoid(in[j] + rec[j]) * tanh(in[2 * H + j] + rec[2 * H + j]);
            h[j] = sigmoid(in[3 * H + j] + rec[3 * H + j]) * tanh(c[j]);
        } else {
            double z = sigmoid(in[H + j] + rec[H + j]);
            h[j] = (1 - z) * tanh(in[2 * H + j] + sigmoid(in[j] + rec[j]) * rec[2 * H + j]) + z * h[j];
        }
    free(in), free(rec);
}

static void check_layer(rp_kind kind, const char *isa, rp_pool *pool, size_t I, size_t H, size_t T, size_t B, unsigned *seed) {
    size_t gates = kind == RP_LSTM ? 4 : 3;
    sparse w = make_sparse(gates * H, I, 3, seed), u = make_sparse(gates * H, H, 3, seed);
    float *bias = random_floats(gates * H, seed), *x = random_floats(T * B * I, seed), *y = random_floats(T * B * H, seed);
    float *h_n = random_floats(B * H, seed), *c_n = random_floats(B * H, seed);
    rp_layer_spec spec = {.kind = kind, .input_size = I, .hidden_size = H, .weight_ih = w.csr, .weight_hh = u.csr,
                          .bias_ih = {bias, gates * H}, .format_ih = FORMATS[0], .format_hh = FORMATS[0],
                          .format_hr = FORMATS[0], .isa = isa};
    rp_layer *layer;
    rp_status status = rp_layer_new(&layer, &spec, rp_pool_threads(pool));
    NEED(status == RP_OK, "%s", rp_status_text(status));
    rp_layer_call call = {.T = T, .B = B, .x = {x, T * B * I}, .x_step = B * I, .x_batch = I, .y = {y, T * B * H},
                          .y_step = B * H, .y_batch = H, .h_n = {h_n, B * H}, .c_n = {c_n, kind == RP_LSTM ? B * H : 0}};
    status = rp_layer_run(layer, pool, &call);
    NEED(status == RP_OK, "%s", rp_status_text(status));
    for (size_t b = 0; b < B; b++) {
        double *h = need_memory(H, sizeof *h), *c = need_memory(H, sizeof *c);
        for (size_t t = 0; t < T; t++) {
            plain_step(kind, I, H, w.dense, u.dense, bias, x + (t * B + b) * I, h, c);
            for (size_t j = 0; j < H; j++)
                NEED(fabs(y[(t * B + b) * H + j] - h[j]) < 2e-5, "kind %d, step %zu, unit %zu", (int)kind, t, j);
        }
        for (size_t j = 0; j < H; j++) NEED(fabs(h_n[b * H + j] - h[j]) < 2e-5, "h_n of unit %zu", j);
        free(h), free(c);
    }
    checks++;
    rp_layer_free(layer);
    free(bias), free(x), free(y), free(h_n), free(c_n);
    free_sparse(&w), free_sparse(&u);
}

static void check_everything(rp_pool *pool, unsigned seed) {
    static const size_t SHAPES[][2] = {{1, 4}, {7, 96}, {64, 65}, {41, 40}, {130, 17}, {16, 70000}};
    static const size_t BATCHES[] = {1, 8, 24};
    for (size_t i = 0; i < COUNT(ISAS); i++) {
        const rp_kernels *kernels = rp_kernels_named(ISAS[i]);
        for (size_t s = 0; kernels && s < COUNT(SHAPES); s++) {
            sparse m = make_sparse(SHAPES[s][0], SHAPES[s][1], 1 + rand_r(&seed) % 4, &seed);
            for (size_t f = 0; f < COUNT(FORMATS); f++)
                for (size_t b = 0; b < COUNT(BATCHES); b++) {
                    bool is_window = FORMATS[f].layout == RP_WINDOW;
                    if ((is_window && (BATCHES[b] != 1 || !kernels->has_window)) || (f && m.cols > 65536)) continue;
                    check_product(&m, FORMATS[f], ISAS[i], pool, BATCHES[b], &seed);
                }
            free_sparse(&m);
        }
        for (size_t b = 1; kernels && b <= 9; b += 4) {
            check_layer(RP_LSTM, ISAS[i], pool, 11, 19, 21, b, &seed);
            check_layer(RP_GRU, ISAS[i], pool, 8, 40, 5, b, &seed);
        }
    }
}

static void *caller(void *pool) {
    unsigned seed = 7;
    for (size_t i = 0; i < 10; i++) check_layer(RP_LSTM, NULL, pool, 8, 24, 9, 1 + i, &seed);
    return NULL;
}

int main(void) {
    for (size_t threads = 1; threads <= 4; threads++) {
        rp_pool *pool;
        NEED(rp_pool_new(&pool, threads) == RP_OK, "no pool");
        check_everything(pool, (unsigned)threads);
        pthread_t others[2]; /* several callers share one team */
        for (size_t i = 0; i < 2; i++) NEED(!pthread_create(&others[i], NULL, caller, pool), "no thread");
        for (size_t i = 0; i < 2; i++) pthread_join(others[i], NULL);
        rp_pool_free(pool);
    }
    printf("%lu products and layers agree with double precision (best: %s)\n", atomic_load(&checks), rp_kernels_best()->name);
    return 0;
}
