/* RP_WINDOW, AVX-512 only: 64 values of x sit in four registers, a slot picks 16 of them with two permutes and a blend.
 * The one place where vector extensions do not suffice: Clang has no permute by a variable. */
#include <immintrin.h>

typedef struct {
    __m512 x0, x1, x2, x3;
} window64;

INLINE __m512 load_up_to_16(const float *x, size_t left) {
    __mmask16 mask = left >= 16 ? 0xffff : (__mmask16)((1u << left) - 1);
    return _mm512_maskz_loadu_ps(mask, x);
}

INLINE size_t minus(size_t a, size_t b) { return a > b ? a - b : 0; }

INLINE window64 load_window(const float *x, size_t left) {
    return (window64){load_up_to_16(x, left), load_up_to_16(x + 16, minus(left, 16)), load_up_to_16(x + 32, minus(left, 32)),
                      load_up_to_16(x + 48, minus(left, 48))};
}

INLINE __m512 pick16(const window64 *w, const uint8_t *column) {
    __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)column));
    __m512 low = _mm512_permutex2var_ps(w->x0, at, w->x1), high = _mm512_permutex2var_ps(w->x2, at, w->x3);
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), low, high);
}

static void window_matvec(const rp_matrix *a, rp_f32_in x, rp_f32_out y) {
    float sums[RP_WINDOW_BATCH * 16];
    const float *v = a->values;
    const uint8_t *column = a->window_column, *slots = a->slots_of, *group = a->group_of;
    for (size_t batch = 0; batch < a->groups; batch += RP_WINDOW_BATCH) {
        size_t groups = a->groups - batch < RP_WINDOW_BATCH ? a->groups - batch : RP_WINDOW_BATCH;
        memset(sums, 0, groups * 16 * sizeof *sums);
        for (size_t first = 0; first < a->cols; first += RP_WINDOW_COLUMNS) {
            window64 w = load_window(x.data + first, a->cols - first);
            for (size_t i = 0; i < groups; i++) {
                float *at = sums + 16 * *group++;
                __m512 sum = _mm512_loadu_ps(at);
                for (size_t n = *slots++; n > 0; n--, v += 16, column += 16)
                    sum = _mm512_fmadd_ps(_mm512_loadu_ps(v), pick16(&w, column), sum);
                _mm512_storeu_ps(at, sum);
            }
        }
        for (size_t g = 0; g < groups; g++) add_to_rows(y.data, a->row_of_lane + 16 * (batch + g), sums + 16 * g, 16);
    }
    sell_matvec_u16(a->remainder, x, y);
}
