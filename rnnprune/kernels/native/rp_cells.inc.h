/* One step of each cell, as the equations say it. */

#define FOR_EACH_8(step, row, j)                       \
    for (size_t row = 0; row < (step)->rows; row++)    \
        for (size_t j = 0; j < (step)->width; j += 8)

INLINE v8f gate(const rp_cell_step *s, size_t g, size_t row, size_t j) {
    return load8(s->gates + g * s->gate_stride + row * s->row_stride + j);
}

/* h = tanh(a) */
static void cell_rnn_tanh(const rp_cell_step *s) {
    FOR_EACH_8(s, row, j) store8(s->h + row * s->width + j, tanh8(gate(s, 0, row, j)));
}

/* h = max(a, 0) */
static void cell_rnn_relu(const rp_cell_step *s) {
    FOR_EACH_8(s, row, j) store8(s->h + row * s->width + j, max8(gate(s, 0, row, j), all8(0.0f)));
}

/* r, z = sigmoid; n = tanh(n_x + r n_h); h' = (1 - z) n + z h */
static void cell_gru(const rp_cell_step *s) {
    FOR_EACH_8(s, row, j) {
        size_t at = row * s->width + j;
        v8f r = sigmoid8(gate(s, 0, row, j)), z = sigmoid8(gate(s, 1, row, j));
        v8f n = tanh8(gate(s, 2, row, j) + r * gate(s, 3, row, j));
        store8(s->h + at, n + z * (load8(s->h_before + at) - n));
    }
}

/* i, f, o = sigmoid; g = tanh; c' = f c + i g; h' = o tanh(c') */
static void cell_lstm(const rp_cell_step *s) {
    FOR_EACH_8(s, row, j) {
        size_t at = row * s->width + j;
        v8f i = sigmoid8(gate(s, 0, row, j)), f = sigmoid8(gate(s, 1, row, j));
        v8f g = tanh8(gate(s, 2, row, j)), o = sigmoid8(gate(s, 3, row, j));
        v8f c = f * load8(s->c + at) + i * g;
        store8(s->c + at, c);
        store8(s->h + at, o * tanh8(c));
    }
}
