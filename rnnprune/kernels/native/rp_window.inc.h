/* RP_WINDOW, AVX-512 only: 64 values of x sit in four registers, a slot picks 16 of them with two permutes and a blend.
 * The one place where vector extensions do not suffice: Clang has no permute by a variable. */
#include <immintrin.h>

typedef struct {
    __m512 x0, x1, x2, x3;
} window64;

INLINE window64 load_window(const float *x) {
    return (window64){_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16), _mm512_loadu_ps(x + 32), _mm512_loadu_ps(x + 48)};
}

INLINE __m512 pick16(const window64 *w, const uint8_t *column) {
    __m512i at = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)column));
    __m512 low = _mm512_permutex2var_ps(w->x0, at, w->x1), high = _mm512_permutex2var_ps(w->x2, at, w->x3);
    return _mm512_mask_blend_ps(_mm512_test_epi32_mask(at, _mm512_set1_epi32(32)), low, high);
}

static void window_matvec(const rp_matrix *a, rp_f32_in x, rp_f32_out y) {
    float narrow_x[RP_WINDOW_COLUMNS] = {0}, row_sum[16];
    const float *from = x.data;
    if (a->cols < RP_WINDOW_COLUMNS) from = memcpy(narrow_x, x.data, a->cols * sizeof *narrow_x);
    for (size_t g = 0; g < a->groups; g++) {
        __m512 sum[RP_WINDOW_SLOTS] = {0};
        for (size_t k = a->group_start[g]; k < a->group_start[g + 1]; k++) {
            const window64 w = load_window(from + a->columns[k]);
            UNROLL for (size_t s = 0; s < RP_WINDOW_SLOTS; s++) {
                size_t at = 16 * (k * RP_WINDOW_SLOTS + s);
                sum[s] = _mm512_fmadd_ps(_mm512_loadu_ps(a->values + at), pick16(&w, a->window_column + at), sum[s]);
            }
        }
        for (size_t s = 1; s < RP_WINDOW_SLOTS; s++) sum[0] = _mm512_add_ps(sum[0], sum[s]);
        _mm512_storeu_ps(row_sum, sum[0]);
        add_to_rows(y.data, a->row_of_lane + 16 * g, row_sum, 16);
    }
    sell_matvec_u16(a->remainder, x, y);
}
