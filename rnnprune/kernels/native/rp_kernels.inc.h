/* The whole engine for one instruction set. The includer sets ISA_NAME, ISA_TABLE, ROWS_OF_16 (rows of a 16-wide tile
 * that fit the registers) and HAS_V8, HAS_V16 where such
 * vectors are registers, HAS_WINDOW for AVX-512. */
#define PHASE_BYTES 40960 /* of x in use at a time; smaller phases cost more in sums stored and loaded (measured) */
#include "rp_kernels.h"

#include "rp_vector.inc.h"

#include "rp_activations.inc.h"
#include "rp_cells.inc.h"

#define COLUMN uint16_t
#define COLUMNS columns
#define PICK8 pick8_u16
#define SELL(name) sell_##name##_u16
#include "rp_sell.inc.h"
#undef COLUMN
#undef COLUMNS
#undef PICK8
#undef SELL

#define COLUMN uint32_t
#define COLUMNS wide_columns
#define PICK8 pick8_u32
#define SELL(name) sell_##name##_u32
#include "rp_sell.inc.h"

#include "rp_block.inc.h"
#ifdef HAS_WINDOW
#include "rp_window.inc.h"
#endif

static void matvec(const rp_matrix *a, rp_f32_in x, rp_f32_out y) {
#ifdef HAS_WINDOW
    if (a->format.layout == RP_WINDOW) window_matvec(a, x, y);
#endif
    if (a->format.layout == RP_BLOCK) block_matvec(a, x, y);
    if (a->format.layout != RP_SELL) return;
    if (a->columns)
        sell_matvec_u16(a, x, y);
    else
        sell_matvec_u32(a, x, y);
}

static void matmat(const rp_matrix *a, rp_f32_in x, size_t x_stride, rp_f32_out y, size_t y_stride, size_t width) {
    if (a->format.layout == RP_BLOCK) block_matmat_any(a, x, x_stride, y, y_stride, width);
    if (a->format.layout != RP_SELL) return;
    if (a->columns)
        sell_matmat_u16(a, x, x_stride, y, y_stride, width);
    else
        sell_matmat_u32(a, x, x_stride, y, y_stride, width);
}

/* Tiles of 8 x 8 keep both sides within a few cache lines. */
static void transpose(rp_f32_in from, size_t rows, size_t cols, rp_f32_out to) {
    for (size_t i = 0; i < rows; i += 8)
        for (size_t j = 0; j < cols; j += 8)
            UNROLL for (size_t jj = 0; jj < 8; jj++)
                UNROLL for (size_t ii = 0; ii < 8; ii++)
                    to.data[(j + jj) * rows + i + ii] = from.data[(i + ii) * cols + j + jj];
}

extern const rp_kernels ISA_TABLE;
const rp_kernels ISA_TABLE = {
    .name = ISA_NAME,
#ifdef HAS_WINDOW
    .has_window = true,
#endif
    .matvec = matvec,
    .matmat = matmat,
    .cell = {cell_rnn_tanh, cell_rnn_relu, cell_gru, cell_lstm},
    .transpose = transpose,
    .tanh = map_tanh,
    .sigmoid = map_sigmoid,
};
