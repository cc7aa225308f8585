/* Vectors of 16 floats on AVX-512 (F, BW, DQ, VL, VNNI) with products of bfloat16. */
#pragma once
#include "simd_avx512.h"

#undef SIMD_NAME
#define SIMD_NAME "avx512_bf16"

/* There are sums of products of bfloat16: what is multiplied with weights or a cache in bf16 is rounded to bf16, too. */
#define SIMD_BF16_PRODUCTS

/* Adds w . x in every lane: a pair of bfloat16, and the pair in x2. Numbers below 2^-126 count as 0. */
static inline v16 v16_add_products(v16 sum, v16b w, int32_t x2) {
  return _mm512_dpbf16_ps(sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(x2));
}
/* Round to nearest, ties to even. */
static inline void v16_store_bf16(uint16_t *p, v16 a) {
  _mm256_storeu_si256((__m256i *)p, (__m256i)_mm512_cvtneps_pbh(a));
}
