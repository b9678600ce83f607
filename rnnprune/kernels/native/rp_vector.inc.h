/* Vectors of 8 and 16 floats. The compiler splits them into what the instruction set has. */
#include <string.h>

#define VECTOR(type, name, count) typedef type name __attribute__((vector_size(sizeof(type) * (count)), aligned(sizeof(type)), may_alias))
VECTOR(float, v4f, 4);
VECTOR(float, v8f, 8);
VECTOR(float, v16f, 16);
VECTOR(int32_t, v8i, 8);
VECTOR(int32_t, v16i, 16);
VECTOR(uint32_t, v8u, 8);

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")

INLINE v8f load8(const float *p) { return *(const v8f *)p; }
INLINE void store8(float *p, v8f v) { *(v8f *)p = v; }
INLINE v8f all8(float x) { return (v8f){x, x, x, x, x, x, x, x}; }
/* Lane n everywhere, n a constant: a shuffle, because the load ports are what these products run out of. */
#define SPLAT8(v, n) __builtin_shufflevector(v, v, n, n, n, n, n, n, n, n)
#define OF_LANE(splat, v, n)                                                                                             \
    ((n) == 0 ? splat(v, 0) : (n) == 1 ? splat(v, 1) : (n) == 2 ? splat(v, 2) : (n) == 3 ? splat(v, 3) : (n) == 4 ? splat(v, 4) \
     : (n) == 5 ? splat(v, 5) : (n) == 6 ? splat(v, 6) : splat(v, 7))
INLINE v8f splat8(v8f v, size_t n) { return OF_LANE(SPLAT8, v, n); }
/* GCC would turn a load and its splats into eight loads that splat, a fifth slower at batch 8 (measured). */
INLINE v8f in_register(v8f v) {
#ifdef HAS_V8
    __asm__("" : "+x"(v));
#endif
    return v;
}
INLINE v8f select8(v8i mask, v8f yes, v8f no) { return (v8f)((mask & (v8i)yes) | (~mask & (v8i)no)); }
INLINE v8f min8(v8f a, v8f b) { return select8(a > b, b, a); } /* a NaN in a stays */
INLINE v8f max8(v8f a, v8f b) { return select8(a < b, b, a); }

/* x[c[0]], ..., x[c[7]]: eight inserts beat a gather on every machine measured; two index loads in place of eight. */
INLINE v8f pick8_u16(const float *x, const uint16_t *c) {
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    uint64_t a, b;
    memcpy(&a, c, 8);
    memcpy(&b, c + 4, 8);
    return (v8f){x[a & 0xffff], x[a >> 16 & 0xffff], x[a >> 32 & 0xffff], x[a >> 48],
                 x[b & 0xffff], x[b >> 16 & 0xffff], x[b >> 32 & 0xffff], x[b >> 48]};
#else
    return (v8f){x[c[0]], x[c[1]], x[c[2]], x[c[3]], x[c[4]], x[c[5]], x[c[6]], x[c[7]]};
#endif
}

INLINE v8f pick8_u32(const float *x, const uint32_t *c) {
    return (v8f){x[c[0]], x[c[1]], x[c[2]], x[c[3]], x[c[4]], x[c[5]], x[c[6]], x[c[7]]};
}

/* y[row_of_lane[l]] += sum[l] for the lanes that stand for a row */
INLINE void add_to_rows(float *y, const uint32_t *row_of_lane, const float *sum, size_t lanes) {
    UNROLL for (size_t l = 0; l < lanes; l++)
        if (row_of_lane[l] != RP_NO_ROW) y[row_of_lane[l]] += sum[l];
}

/* 16 floats: one register with AVX-512, else two of 8. GCC would keep a split v16f in memory, five times slower. */
#ifdef HAS_V16
typedef v16f wide;
#define SPLAT16(v, n) __builtin_shufflevector(v, v, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n, n)
INLINE wide wide_load(const float *p) { return *(const v16f *)p; }
INLINE wide wide_all(float x) { return (v16f){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
INLINE wide wide_splat(v8f v, size_t n) { return OF_LANE(SPLAT16, v, n); }
INLINE wide wide_plus(wide a, wide b) { return a + b; }
INLINE wide wide_times(wide a, wide b) { return a * b; }
INLINE wide wide_multiply_add(wide sum, wide a, wide b) { return sum + a * b; }
INLINE void wide_store(float *p, wide v) { *(v16f *)p = v; }
/* byte `plane` of each of the 16 words */
INLINE wide wide_of_bytes(const int8_t *words, int plane) {
    return __builtin_convertvector(*(const v16i *)words << (24 - 8 * plane) >> 24, v16f);
}
#else
typedef struct {
    v8f low, high;
} wide;
INLINE wide wide_load(const float *p) { return (wide){load8(p), load8(p + 8)}; }
INLINE wide wide_all(float x) { return (wide){all8(x), all8(x)}; }
INLINE wide wide_splat(v8f v, size_t n) { return (wide){splat8(v, n), splat8(v, n)}; }
INLINE wide wide_plus(wide a, wide b) { return (wide){a.low + b.low, a.high + b.high}; }
INLINE wide wide_times(wide a, wide b) { return (wide){a.low * b.low, a.high * b.high}; }
INLINE wide wide_multiply_add(wide sum, wide a, wide b) { return (wide){sum.low + a.low * b.low, sum.high + a.high * b.high}; }
INLINE void wide_store(float *p, wide v) {
    store8(p, v.low);
    store8(p + 8, v.high);
}
INLINE wide wide_of_bytes(const int8_t *words, int plane) {
    const v8i *w = (const v8i *)words;
    return (wide){__builtin_convertvector(w[0] << (24 - 8 * plane) >> 24, v8f),
                  __builtin_convertvector(w[1] << (24 - 8 * plane) >> 24, v8f)};
}
#endif
INLINE void wide_add_to(float *p, wide v) { wide_store(p, wide_plus(wide_load(p), v)); }

/* The narrowest tile of a batch product: what one register holds. */
#ifdef HAS_V8
typedef v8f narrow;
#define NARROW 8
INLINE narrow narrow_splat(v8f v, size_t n) { return splat8(v, n); }
INLINE narrow narrow_all(float x) { return all8(x); }
#else
typedef v4f narrow;
#define NARROW 4
INLINE narrow narrow_splat(v8f v, size_t n) { return (v4f){v[n], v[n], v[n], v[n]}; }
INLINE narrow narrow_all(float x) { return (v4f){x, x, x, x}; }
#endif
INLINE narrow narrow_load(const float *p) { return *(const narrow *)p; }
INLINE void narrow_add_to(float *p, narrow v) { *(narrow *)p += v; }
INLINE narrow narrow_times(narrow a, narrow b) { return a * b; }
INLINE narrow narrow_multiply_add(narrow sum, narrow a, narrow b) { return sum + a * b; }
