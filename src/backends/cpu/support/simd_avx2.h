/* Vectors of 16 floats on AVX2 with FMA and F16C. Two registers each. */
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define SIMD_NAME "avx2"
#define SIMD_ROWS 2
#define SIMD_MANY_ROWS 2
#define SIMD_SUMS 4
#define SIMD_PREFETCH_BYTES_OF_ONE_ROW 1024
#define SIMD_VALUES(heads) ((heads) > 2 ? 1 : (heads) > 1 ? 2 : 4)
#define SIMD_POSITIONS 32

typedef struct {
  __m256 lo, hi;
} v16;

static inline v16 v16_set(float x) { return (v16){_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline v16 v16_zero(void) { return (v16){_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline v16 v16_load(const float *p) { return (v16){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void v16_store(float *p, v16 a) {
  _mm256_storeu_ps(p, a.lo);
  _mm256_storeu_ps(p + 8, a.hi);
}
static inline v16 v16_load_part(const float *p, int n) {
  float whole[16] = {0};
  memcpy(whole, p, (size_t)n * sizeof *p);
  return v16_load(whole);
}
static inline void v16_store_part(float *p, v16 a, int n) {
  float whole[16];
  v16_store(whole, a);
  memcpy(p, whole, (size_t)n * sizeof *p);
}
static inline v16 v16_add(v16 a, v16 b) { return (v16){_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
static inline v16 v16_sub(v16 a, v16 b) { return (v16){_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
static inline v16 v16_mul(v16 a, v16 b) { return (v16){_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
static inline v16 v16_div(v16 a, v16 b) { return (v16){_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
static inline v16 v16_max(v16 a, v16 b) { return (v16){_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
static inline v16 v16_min(v16 a, v16 b) { return (v16){_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
/* a * b + c, rounded once. */
static inline v16 v16_fma(v16 a, v16 b, v16 c) {
  return (v16){_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline v16 v16_round(v16 a) {
  return (v16){_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
               _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
/* Whole numbers of -127 .. 127. */
static inline void v16_store_int8(int8_t *p, v16 a) {
  const __m256i lo = _mm256_cvtps_epi32(a.lo), hi = _mm256_cvtps_epi32(a.hi);
  const __m128i low = _mm_packs_epi32(_mm256_castsi256_si128(lo), _mm256_extracti128_si256(lo, 1));
  const __m128i high = _mm_packs_epi32(_mm256_castsi256_si128(hi), _mm256_extracti128_si256(hi, 1));
  _mm_storeu_si128((__m128i *)p, _mm_packs_epi16(low, high));
}
/* Whole numbers of -32767 .. 32767. */
static inline void v16_store_int16(int16_t *p, v16 a) {
  const __m256i both = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  _mm256_storeu_si256((__m256i *)p, _mm256_permute4x64_epi64(both, 0xd8));
}
static inline __m256 v8_power2(__m256 n) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
/* a * 2^n for integral n in -126 .. 127. */
static inline v16 v16_scale2(v16 a, v16 n) {
  return (v16){_mm256_mul_ps(a.lo, v8_power2(n.lo)), _mm256_mul_ps(a.hi, v8_power2(n.hi))};
}
static inline float v16_sum(v16 a) {
  const __m256 eight = _mm256_add_ps(a.lo, a.hi);
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
static inline float v16_largest(v16 a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

static inline __m256 v8_load_bf16(const uint16_t *p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline v16 v16_load_bf16(const uint16_t *p) { return (v16){v8_load_bf16(p), v8_load_bf16(p + 8)}; }
static inline v16 v16_load_f16(const uint16_t *p) {
  return (v16){_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)),
               _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 8)))};
}

/* Vectors of 16 int32, for dot products of small integers. */
typedef struct {
  __m256i lo, hi;
} v16i;

static inline v16i v16i_set(int32_t x) { return (v16i){_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
static inline v16 v16_from_int(v16i a) { return (v16){_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
/* Pairs of products of unsigned and signed bytes must fit 16 bits: 2 * 127 * -128 does. */
static inline __m256i v8i_dot(__m256i sum, __m256i unsigned_bytes, __m256i signed_bytes) {
  const __m256i pairs = _mm256_maddubs_epi16(unsigned_bytes, signed_bytes);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
/* What takes the place of v16i_dot_q8 (linear_quantized.h). */
#define SIMD_Q8_MAGNITUDES
/* Adds |x| . (w ^ flips) in every lane, four bytes each; flipped weights are signed. */
static inline v16i v16i_dot_flipped(v16i sum, const uint8_t *w, int32_t magnitudes, int32_t flips) {
  const __m256i x = _mm256_set1_epi32(magnitudes), flip = _mm256_set1_epi32(flips);
  const __m256i lo = _mm256_loadu_si256((const __m256i *)w), hi = _mm256_loadu_si256((const __m256i *)(w + 32));
  return (v16i){v8i_dot(sum.lo, x, _mm256_xor_si256(lo, flip)), v8i_dot(sum.hi, x, _mm256_xor_si256(hi, flip))};
}

/* Vectors of 64 bytes: 16 rows of four. Shifts may carry bits over the border of a byte: callers mask. */
typedef v16i v16b;

#define V16I_BOTH(operation, a, ...) ((v16i){operation((a).lo, __VA_ARGS__), operation((a).hi, __VA_ARGS__)})

static inline v16b v16b_load(const uint8_t *p) {
  return (v16b){_mm256_loadu_si256((const __m256i *)p), _mm256_loadu_si256((const __m256i *)(p + 32))};
}
static inline void v16b_store(uint8_t *p, v16b a) {
  _mm256_storeu_si256((__m256i *)p, a.lo);
  _mm256_storeu_si256((__m256i *)(p + 32), a.hi);
}
static inline v16b v16b_and(v16b a, int mask) { return V16I_BOTH(_mm256_and_si256, a, _mm256_set1_epi8((char)mask)); }
static inline v16b v16b_or(v16b a, v16b b) { return (v16b){_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
static inline v16b v16b_shl(v16b a, int n) { return V16I_BOTH(_mm256_slli_epi16, a, n); }
static inline v16b v16b_shr(v16b a, int n) { return V16I_BOTH(_mm256_srli_epi16, a, n); }
/* 16 bytes, four times. */
static inline v16b v16b_set_quarters(const uint8_t *p) {
  const __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
  return (v16b){both, both};
}
/* Of every quarter, the bytes at these places of 0 .. 15 in it. */
static inline v16b v16b_lookup(v16b quarters, v16b places) {
  return (v16b){_mm256_shuffle_epi8(quarters.lo, places.lo), _mm256_shuffle_epi8(quarters.hi, places.hi)};
}
/* Bytes of a and b in turn: the first eight of every quarter, the last eight. */
static inline v16b v16b_zip_first(v16b a, v16b b) {
  return (v16b){_mm256_unpacklo_epi8(a.lo, b.lo), _mm256_unpacklo_epi8(a.hi, b.hi)};
}
static inline v16b v16b_zip_last(v16b a, v16b b) {
  return (v16b){_mm256_unpackhi_epi8(a.lo, b.lo), _mm256_unpackhi_epi8(a.hi, b.hi)};
}
/* 32 bf16 values: those at even and at odd places. */
static inline void v16_from_bf16_pairs(v16b pairs, v16 *even, v16 *odd) {
  const __m256i mask = _mm256_set1_epi32((int)0xffff0000u);
  even->lo = _mm256_castsi256_ps(_mm256_slli_epi32(pairs.lo, 16));
  even->hi = _mm256_castsi256_ps(_mm256_slli_epi32(pairs.hi, 16));
  odd->lo = _mm256_castsi256_ps(_mm256_and_si256(pairs.lo, mask));
  odd->hi = _mm256_castsi256_ps(_mm256_and_si256(pairs.hi, mask));
}
/* Adds w . x in every lane: four weights of 0 .. 63, and the four int8 in x4. */
static inline v16i v16i_dot(v16i sum, v16b w, int32_t x4) {
  const __m256i x = _mm256_set1_epi32(x4);
  return (v16i){v8i_dot(sum.lo, w.lo, x), v8i_dot(sum.hi, w.hi, x)};
}
/* Sums of products in pairs of 16 bits (linear_quantized.h), which save a widening for each of them. */
#define SIMD_SHORT_SUMS
typedef v16i v16s;

static inline v16s v16s_begin(v16i sum) {
  (void)sum;
  return (v16s){_mm256_setzero_si256(), _mm256_setzero_si256()};
}
static inline v16s v16s_dot(v16s sum, v16b w, int32_t x4) {
  const __m256i x = _mm256_set1_epi32(x4);
  return (v16s){_mm256_add_epi16(sum.lo, _mm256_maddubs_epi16(w.lo, x)),
                _mm256_add_epi16(sum.hi, _mm256_maddubs_epi16(w.hi, x))};
}
static inline v16i v16s_end(v16s sum, v16i begun) {
  const __m256i ones = _mm256_set1_epi16(1);
  return (v16i){_mm256_add_epi32(begun.lo, _mm256_madd_epi16(sum.lo, ones)),
                _mm256_add_epi32(begun.hi, _mm256_madd_epi16(sum.hi, ones))};
}
static inline v16i v16i_load_unsigned(const uint8_t *p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i *)p);
  return (v16i){_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
static inline v16i v16i_load_signed(const uint8_t *p) {
  const __m128i bytes = _mm_loadu_si128((const __m128i *)p);
  return (v16i){_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
/* Pairs of int8, widened. */
typedef v16i v16p;
static inline v16p v16p_load(const uint8_t *p) {
  return (v16p){_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)),
                _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p + 16)))};
}
/* Adds w . x in every lane: a pair, and the pair of int16 in x2. */
static inline v16i v16i_add_pairs(v16i sum, v16p w, int32_t x2) {
  const __m256i x = _mm256_set1_epi32(x2);
  return (v16i){_mm256_add_epi32(sum.lo, _mm256_madd_epi16(w.lo, x)), _mm256_add_epi32(sum.hi, _mm256_madd_epi16(w.hi, x))};
}
static inline v16i v16i_of_bits(v16 a) { return (v16i){_mm256_castps_si256(a.lo), _mm256_castps_si256(a.hi)}; }
static inline v16 v16_of_bits(v16i a) { return (v16){_mm256_castsi256_ps(a.lo), _mm256_castsi256_ps(a.hi)}; }
static inline v16i v16i_and(v16i a, int mask) { return V16I_BOTH(_mm256_and_si256, a, _mm256_set1_epi32(mask)); }
static inline v16i v16i_or(v16i a, v16i b) { return v16b_or(a, b); }
static inline v16i v16i_shl(v16i a, int n) { return V16I_BOTH(_mm256_slli_epi32, a, n); }
static inline v16i v16i_shr(v16i a, int n) { return V16I_BOTH(_mm256_srli_epi32, a, n); }
