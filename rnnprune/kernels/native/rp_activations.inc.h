/* tanh and sigmoid of 8 floats, relative error at most 4 units in the last place (5e-7), NaN stays NaN. */

/* tanh x = x P(x^2) / Q(x^2), both of degree 4: a minimax fit on [-9, 9] with relative error 2.1e-8 before rounding;
 * beyond 9 tanh is 1 to the last bit. */
INLINE v8f tanh8(v8f x) {
    x = max8(min8(x, all8(9.0f)), all8(-9.0f));
    v8f s = x * x;
    v8f p = all8(1.335474664188041e-08f);
    p = p * s + 2.0609164494089782e-05f;
    p = p * s + 3.495594020932913e-03f;
    p = p * s + 1.3381031155586243e-01f;
    p = p * s + 1.0f;
    v8f q = all8(7.776598636155541e-07f);
    q = q * s + 3.285643761046231e-04f;
    q = q * s + 2.5877006351947784e-02f;
    q = q * s + 4.671434760093689e-01f;
    q = q * s + 1.0f;
    return min8(max8(x * p / q, all8(-1.0f)), all8(1.0f));
}

/* exp x = 2^n exp r, n = round(x / ln 2), |r| <= ln 2 / 2; exp r = 1 + r + r^2 p(r), p a minimax fit with relative
 * error 3.5e-9. Clamped where 2^n would leave the normal floats. */
INLINE v8f exp8(v8f x) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer, which then sits in the low bits */
    const float ln2_high = 0.693145751953125f, ln2_low = 1.4286068e-06f;
    x = max8(min8(x, all8(88.0f)), all8(-87.0f));
    v8f n = x * 1.442695041f + shift;
    v8u exponent = (v8u)n << 23;
    n -= shift;
    v8f r = (x - n * ln2_high) - n * ln2_low;
    v8f p = all8(1.3811661629006267e-03f);
    p = p * r + 8.370134979486465e-03f;
    p = p * r + 4.166852682828903e-02f;
    p = p * r + 1.6666509211063385e-01f;
    p = p * r + 0.4999999403953552f;
    p = p * r * r + r + 1.0f;
    return (v8f)((v8u)p + exponent);
}

/* 1 / (1 + exp -x) keeps its relative error where sigmoid is tiny, unlike (1 + tanh x/2) / 2. */
INLINE v8f sigmoid8(v8f x) { return 1.0f / (1.0f + exp8(-x)); }

typedef v8f (*activation)(v8f);

INLINE void map(activation f, rp_f32_in x, rp_f32_out y) {
    size_t i = 0, len = x.len < y.len ? x.len : y.len;
    for (; i + 8 <= len; i += 8) store8(y.data + i, f(load8(x.data + i)));
    float tail[8] = {0};
    memcpy(tail, x.data + i, (len - i) * sizeof *tail);
    store8(tail, f(load8(tail)));
    memcpy(y.data + i, tail, (len - i) * sizeof *tail);
}

static void map_tanh(rp_f32_in x, rp_f32_out y) { map(tanh8, x, y); }
static void map_sigmoid(rp_f32_in x, rp_f32_out y) { map(sigmoid8, x, y); }
