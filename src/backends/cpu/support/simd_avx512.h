/* Vectors of 16 floats on AVX-512 (F, BW, DQ, VL, VNNI). One register each. */
#pragma once
#include <immintrin.h>
#include <stdint.h>

#define SIMD_NAME "avx512"
/* Rows that are multiplied with a tile at once, where there are no more, and where there are: their sums fit the registers. */
#define SIMD_ROWS 4
#define SIMD_MANY_ROWS 8
/* Attention: sums of scores side by side; vectors of values that are summed together for some query heads; positions that are read
 * again for what did not fit. */
#define SIMD_SUMS 8
#define SIMD_VALUES(heads) 4
#define SIMD_POSITIONS 64

typedef __m512 v16;

static inline v16 v16_zero(void) { return _mm512_setzero_ps(); }
static inline v16 v16_set(float x) { return _mm512_set1_ps(x); }
static inline v16 v16_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v16_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
static inline v16 v16_load_part(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
static inline void v16_store_part(float *p, v16 a, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), a); }
static inline v16 v16_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v16_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v16_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v16_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v16_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 v16_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }
/* a * b + c, rounded once. */
static inline v16 v16_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v16_round(v16 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
/* Whole numbers of -127 .. 127. */
static inline void v16_store_int8(int8_t *p, v16 a) {
  _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a)));
}
/* Whole numbers of -32767 .. 32767. */
static inline void v16_store_int16(int16_t *p, v16 a) {
  _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(a)));
}
/* a * 2^n for integral n. */
static inline v16 v16_scale2(v16 a, v16 n) { return _mm512_scalef_ps(a, n); }
static inline float v16_sum(v16 a) { return _mm512_reduce_add_ps(a); }
static inline float v16_largest(v16 a) { return _mm512_reduce_max_ps(a); }

static inline v16 v16_load_bf16(const uint16_t *p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline v16 v16_load_f16(const uint16_t *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

/* Vectors of 16 int32, for dot products of small integers. */
typedef __m512i v16i;

/* Weights of q8_0 are stored as q + 128: the instruction wants one side unsigned. */
#define SIMD_Q8_BIAS 128

static inline v16i v16i_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline v16 v16_from_int(v16i a) { return _mm512_cvtepi32_ps(a); }
/* Adds w . x in every lane: four weights of 0 .. 255, and the four int8 in x4. */
static inline v16i v16i_dot_q8(v16i sum, const uint8_t *w, int32_t x4) {
  return _mm512_dpbusd_epi32(sum, _mm512_loadu_si512(w), _mm512_set1_epi32(x4));
}

/* Vectors of 64 bytes: 16 rows of four. Shifts may carry bits over the border of a byte: callers mask. */
typedef __m512i v16b;

static inline v16b v16b_load(const uint8_t *p) { return _mm512_loadu_si512(p); }
static inline void v16b_store(uint8_t *p, v16b a) { _mm512_storeu_si512(p, a); }
static inline v16b v16b_and(v16b a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi8((char)mask)); }
static inline v16b v16b_or(v16b a, v16b b) { return _mm512_or_si512(a, b); }
static inline v16b v16b_shl(v16b a, int n) { return _mm512_slli_epi16(a, (unsigned)n); }
static inline v16b v16b_shr(v16b a, int n) { return _mm512_srli_epi16(a, (unsigned)n); }
/* 16 bytes, four times. */
static inline v16b v16b_set_quarters(const uint8_t *p) {
  return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p));
}
/* Of every quarter, the bytes at these places of 0 .. 15 in it. */
static inline v16b v16b_lookup(v16b quarters, v16b places) { return _mm512_shuffle_epi8(quarters, places); }
/* Bytes of a and b in turn: the first eight of every quarter, the last eight. */
static inline v16b v16b_zip_first(v16b a, v16b b) { return _mm512_unpacklo_epi8(a, b); }
static inline v16b v16b_zip_last(v16b a, v16b b) { return _mm512_unpackhi_epi8(a, b); }
/* 32 bf16 values: those at even and at odd places. */
static inline void v16_from_bf16_pairs(v16b pairs, v16 *even, v16 *odd) {
  *even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
  *odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32((int)0xffff0000u)));
}
/* Adds w . x in every lane: four weights of 0 .. 63, and the four int8 in x4. */
static inline v16i v16i_dot(v16i sum, v16b w, int32_t x4) {
  return _mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x4));
}
static inline v16i v16i_load_unsigned(const uint8_t *p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
}
static inline v16i v16i_load_signed(const uint8_t *p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
}
/* Pairs of int8, widened. */
typedef __m512i v16p;
static inline v16p v16p_load(const uint8_t *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)); }
/* Adds w . x in every lane: a pair, and the pair of int16 in x2. */
static inline v16i v16i_add_pairs(v16i sum, v16p w, int32_t x2) { return _mm512_dpwssd_epi32(sum, w, _mm512_set1_epi32(x2)); }
static inline v16i v16i_of_bits(v16 a) { return _mm512_castps_si512(a); }
static inline v16 v16_of_bits(v16i a) { return _mm512_castsi512_ps(a); }
static inline v16i v16i_and(v16i a, int mask) { return _mm512_and_si512(a, _mm512_set1_epi32(mask)); }
static inline v16i v16i_or(v16i a, v16i b) { return _mm512_or_si512(a, b); }
static inline v16i v16i_shl(v16i a, int n) { return _mm512_slli_epi32(a, (unsigned)n); }
static inline v16i v16i_shr(v16i a, int n) { return _mm512_srli_epi32(a, (unsigned)n); }
