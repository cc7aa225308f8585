/* Vectors of 16 floats in plain C, for machines without a header of their own. Assumes little-endian words. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define SIMD_NAME "generic"
#define SIMD_ROWS 2
#define SIMD_MANY_ROWS 2
#define SIMD_SUMS 4
#define SIMD_VALUES(heads) ((heads) > 2 ? 1 : (heads) > 1 ? 2 : 4)
#define SIMD_POSITIONS 32

typedef struct {
  float lane[16];
} v16;

#define V16_EACH(i, expression)         \
  v16 result;                           \
  for (int i = 0; i < 16; ++i) {        \
    result.lane[i] = (expression);      \
  }                                     \
  return result

static inline v16 v16_set(float x) { V16_EACH(i, x); }
static inline v16 v16_zero(void) { return v16_set(0.0f); }
static inline v16 v16_load(const float *p) { V16_EACH(i, p[i]); }
static inline void v16_store(float *p, v16 a) { memcpy(p, a.lane, sizeof a.lane); }
static inline v16 v16_load_part(const float *p, int n) { V16_EACH(i, i < n ? p[i] : 0.0f); }
static inline void v16_store_part(float *p, v16 a, int n) { memcpy(p, a.lane, (size_t)n * sizeof *p); }
static inline v16 v16_add(v16 a, v16 b) { V16_EACH(i, a.lane[i] + b.lane[i]); }
static inline v16 v16_sub(v16 a, v16 b) { V16_EACH(i, a.lane[i] - b.lane[i]); }
static inline v16 v16_mul(v16 a, v16 b) { V16_EACH(i, a.lane[i] * b.lane[i]); }
static inline v16 v16_div(v16 a, v16 b) { V16_EACH(i, a.lane[i] / b.lane[i]); }
static inline v16 v16_max(v16 a, v16 b) { V16_EACH(i, a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline v16 v16_min(v16 a, v16 b) { V16_EACH(i, a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
/* a * b + c; rounded twice, since a machine without the instruction would call a function for it. */
static inline v16 v16_fma(v16 a, v16 b, v16 c) { V16_EACH(i, a.lane[i] * b.lane[i] + c.lane[i]); }
static inline v16 v16_round(v16 a) { V16_EACH(i, rintf(a.lane[i])); }
/* Whole numbers of -32767 .. 32767. */
static inline void v16_store_int16(int16_t *p, v16 a) {
  for (int i = 0; i < 16; ++i) p[i] = (int16_t)a.lane[i];
}
/* Whole numbers of -127 .. 127. */
static inline void v16_store_int8(int8_t *p, v16 a) {
  for (int i = 0; i < 16; ++i) p[i] = (int8_t)a.lane[i];
}
/* a * 2^n for integral n in -126 .. 127. */
static inline v16 v16_scale2(v16 a, v16 n) {
  v16 result;
  for (int i = 0; i < 16; ++i) {
    const uint32_t bits = (uint32_t)((int32_t)n.lane[i] + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    result.lane[i] = a.lane[i] * power;
  }
  return result;
}
static inline float v16_sum(v16 a) {
  float half[8];
  for (int i = 0; i < 8; ++i) half[i] = a.lane[i] + a.lane[i + 8];
  return ((half[0] + half[4]) + (half[2] + half[6])) + ((half[1] + half[5]) + (half[3] + half[7]));
}
static inline float v16_largest(v16 a) {
  float largest = a.lane[0];
  for (int i = 1; i < 16; ++i) largest = a.lane[i] > largest ? a.lane[i] : largest;
  return largest;
}

static inline float bf16_value(uint16_t bits) {
  const uint32_t wide = (uint32_t)bits << 16;
  float value;
  memcpy(&value, &wide, sizeof value);
  return value;
}
static inline float f16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31;
  const int fraction = bits & 1023;
  const float sign = bits >> 15 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction ? NAN : sign * INFINITY;
  return sign * (exponent ? ldexpf((float)(fraction + 1024), exponent - 25) : ldexpf((float)fraction, -24));
}
static inline v16 v16_load_bf16(const uint16_t *p) { V16_EACH(i, bf16_value(p[i])); }
static inline v16 v16_load_f16(const uint16_t *p) { V16_EACH(i, f16_value(p[i])); }

/* Vectors of 16 int32, for dot products of small integers. */
typedef struct {
  int32_t lane[16];
} v16i;

/* Weights of q8_0 are stored as q + 128; here they are made signed again. */
#define SIMD_Q8_BIAS 0

static inline v16i v16i_set(int32_t x) {
  v16i result;
  for (int i = 0; i < 16; ++i) result.lane[i] = x;
  return result;
}
static inline v16 v16_from_int(v16i a) { V16_EACH(i, (float)a.lane[i]); }
/* Adds w . x in every lane: four weights of -128 .. 127, stored + 128, and the four int8 in x4. */
static inline v16i v16i_dot_q8(v16i sum, const uint8_t *w, int32_t x4) {
  int8_t x[4];
  memcpy(x, &x4, sizeof x);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) sum.lane[i] += ((int)w[4 * i + j] - 128) * x[j];
  return sum;
}

/* Vectors of 64 bytes: 16 rows of four, eight bytes at a time. Shifts carry bits over the border of a byte: callers mask. */
typedef struct {
  uint64_t word[8];
} v16b;

#define EIGHT_BYTES(x) ((uint64_t)(x) * 0x0101010101010101ull)
#define V16B_EACH(i, expression)                                           \
  v16b result;                                                             \
  for (int i = 0; i < 8; ++i) result.word[i] = (expression);               \
  return result
#define V16I_EACH(i, expression)                                           \
  v16i result;                                                             \
  for (int i = 0; i < 16; ++i) result.lane[i] = (int32_t)(expression);     \
  return result

static inline v16b v16b_load(const uint8_t *p) {
  v16b result;
  memcpy(&result, p, sizeof result);
  return result;
}
static inline void v16b_store(uint8_t *p, v16b a) { memcpy(p, &a, sizeof a); }
static inline v16b v16b_and(v16b a, int mask) { V16B_EACH(i, a.word[i] & EIGHT_BYTES(mask)); }
static inline v16b v16b_or(v16b a, v16b b) { V16B_EACH(i, a.word[i] | b.word[i]); }
static inline v16b v16b_shl(v16b a, int n) { V16B_EACH(i, a.word[i] << n); }
static inline v16b v16b_shr(v16b a, int n) { V16B_EACH(i, a.word[i] >> n); }
/* 16 bytes, four times. */
static inline v16b v16b_set_quarters(const uint8_t *p) {
  v16b result;
  for (int i = 0; i < 8; ++i) memcpy(&result.word[i], p + 8 * (i % 2), 8);
  return result;
}
#define V16B_BYTES(i, a, b, expression)                                    \
  uint8_t a_bytes[64], b_bytes[64], bytes[64];                             \
  memcpy(a_bytes, &a, sizeof a_bytes);                                     \
  memcpy(b_bytes, &b, sizeof b_bytes);                                     \
  for (int i = 0; i < 64; ++i) bytes[i] = (expression);                    \
  return v16b_load(bytes)
/* Of every quarter, the bytes at these places of 0 .. 15 in it. */
static inline v16b v16b_lookup(v16b quarters, v16b places) {
  V16B_BYTES(i, quarters, places, a_bytes[(i & 48) + (b_bytes[i] & 15)]);
}
/* Bytes of a and b in turn: the first eight of every quarter, the last eight. */
static inline v16b v16b_zip_first(v16b a, v16b b) {
  V16B_BYTES(i, a, b, (i & 1 ? b_bytes : a_bytes)[(i & 48) + (i & 15) / 2]);
}
static inline v16b v16b_zip_last(v16b a, v16b b) {
  V16B_BYTES(i, a, b, (i & 1 ? b_bytes : a_bytes)[(i & 48) + 8 + (i & 15) / 2]);
}
/* 32 bf16 values: those at even and at odd places. */
static inline void v16_from_bf16_pairs(v16b pairs, v16 *even, v16 *odd) {
  uint16_t values[32];
  memcpy(values, &pairs, sizeof values);
  for (int i = 0; i < 16; ++i) {
    even->lane[i] = bf16_value(values[2 * i]);
    odd->lane[i] = bf16_value(values[2 * i + 1]);
  }
}
/* Adds w . x in every lane: four weights of 0 .. 63, and the four int8 in x4. */
static inline v16i v16i_dot(v16i sum, v16b w, int32_t x4) {
  int8_t x[4];
  uint8_t bytes[64];
  memcpy(x, &x4, sizeof x);
  memcpy(bytes, &w, sizeof bytes);
  for (int i = 0; i < 16; ++i)
    for (int j = 0; j < 4; ++j) sum.lane[i] += bytes[4 * i + j] * x[j];
  return sum;
}
static inline v16i v16i_load_unsigned(const uint8_t *p) { V16I_EACH(i, p[i]); }
static inline v16i v16i_load_signed(const uint8_t *p) { V16I_EACH(i, (int8_t)p[i]); }
/* Pairs of int8. */
typedef struct {
  int8_t lane[16][2];
} v16p;
static inline v16p v16p_load(const uint8_t *p) {
  v16p result;
  memcpy(&result, p, sizeof result);
  return result;
}
/* Adds w . x in every lane: a pair, and the pair of int16 in x2. */
static inline v16i v16i_add_pairs(v16i sum, v16p w, int32_t x2) {
  int16_t x[2];
  memcpy(x, &x2, sizeof x);
  V16I_EACH(i, sum.lane[i] + w.lane[i][0] * x[0] + w.lane[i][1] * x[1]);
}
static inline v16i v16i_of_bits(v16 a) {
  v16i result;
  memcpy(&result, &a, sizeof result);
  return result;
}
static inline v16 v16_of_bits(v16i a) {
  v16 result;
  memcpy(&result, &a, sizeof result);
  return result;
}
static inline v16i v16i_and(v16i a, int mask) { V16I_EACH(i, a.lane[i] & mask); }
static inline v16i v16i_or(v16i a, v16i b) { V16I_EACH(i, a.lane[i] | b.lane[i]); }
static inline v16i v16i_shl(v16i a, int n) { V16I_EACH(i, (uint32_t)a.lane[i] << n); }
static inline v16i v16i_shr(v16i a, int n) { V16I_EACH(i, (uint32_t)a.lane[i] >> n); }
