/* Vectors of 16 floats on NEON (aarch64). Four registers each. */
#pragma once
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define SIMD_NAME "neon"
#define SIMD_ROWS 2
#define SIMD_MANY_ROWS 2
#define SIMD_SUMS 4
#define SIMD_VALUES(heads) ((heads) > 2 ? 1 : (heads) > 1 ? 2 : 4)
#define SIMD_POSITIONS 32

typedef struct {
  float32x4_t q[4];
} v16;

#define V16_EACH(i, expression)         \
  v16 result;                           \
  for (int i = 0; i < 4; ++i) {         \
    result.q[i] = (expression);         \
  }                                     \
  return result

static inline v16 v16_set(float x) { V16_EACH(i, vdupq_n_f32(x)); }
static inline v16 v16_zero(void) { return v16_set(0.0f); }
static inline v16 v16_load(const float *p) { V16_EACH(i, vld1q_f32(p + 4 * i)); }
static inline void v16_store(float *p, v16 a) {
  for (int i = 0; i < 4; ++i) vst1q_f32(p + 4 * i, a.q[i]);
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
static inline v16 v16_add(v16 a, v16 b) { V16_EACH(i, vaddq_f32(a.q[i], b.q[i])); }
static inline v16 v16_sub(v16 a, v16 b) { V16_EACH(i, vsubq_f32(a.q[i], b.q[i])); }
static inline v16 v16_mul(v16 a, v16 b) { V16_EACH(i, vmulq_f32(a.q[i], b.q[i])); }
static inline v16 v16_div(v16 a, v16 b) { V16_EACH(i, vdivq_f32(a.q[i], b.q[i])); }
static inline v16 v16_max(v16 a, v16 b) { V16_EACH(i, vmaxq_f32(a.q[i], b.q[i])); }
static inline v16 v16_min(v16 a, v16 b) { V16_EACH(i, vminq_f32(a.q[i], b.q[i])); }
/* a * b + c, rounded once. */
static inline v16 v16_fma(v16 a, v16 b, v16 c) { V16_EACH(i, vfmaq_f32(c.q[i], a.q[i], b.q[i])); }
static inline v16 v16_round(v16 a) { V16_EACH(i, vrndnq_f32(a.q[i])); }
static inline int16x8_t v8_int16(float32x4_t low, float32x4_t high) {
  return vcombine_s16(vmovn_s32(vcvtq_s32_f32(low)), vmovn_s32(vcvtq_s32_f32(high)));
}
/* Whole numbers of -127 .. 127. */
static inline void v16_store_int8(int8_t *p, v16 a) {
  vst1q_s8(p, vcombine_s8(vmovn_s16(v8_int16(a.q[0], a.q[1])), vmovn_s16(v8_int16(a.q[2], a.q[3]))));
}
/* Whole numbers of -32767 .. 32767. */
static inline void v16_store_int16(int16_t *p, v16 a) {
  vst1q_s16(p, v8_int16(a.q[0], a.q[1]));
  vst1q_s16(p + 8, v8_int16(a.q[2], a.q[3]));
}
static inline float32x4_t v4_power2(float32x4_t n) {
  return vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23));
}
/* a * 2^n for integral n in -126 .. 127. */
static inline v16 v16_scale2(v16 a, v16 n) { V16_EACH(i, vmulq_f32(a.q[i], v4_power2(n.q[i]))); }
static inline float v16_sum(v16 a) {
  return vaddvq_f32(vaddq_f32(vaddq_f32(a.q[0], a.q[1]), vaddq_f32(a.q[2], a.q[3])));
}
static inline float v16_largest(v16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.q[0], a.q[1]), vmaxq_f32(a.q[2], a.q[3])));
}

static inline v16 v16_load_bf16(const uint16_t *p) {
  V16_EACH(i, vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p + 4 * i), 16)));
}
static inline v16 v16_load_f16(const uint16_t *p) {
  V16_EACH(i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p + 4 * i))));
}

/* Vectors of 16 int32, for dot products of small integers. Four registers each. */
typedef struct {
  int32x4_t q[4];
} v16i;

/* Weights of q8_0 are stored as q + 128; here they are made signed again. */
#define SIMD_Q8_BIAS 0

static inline v16i v16i_set(int32_t x) {
  v16i result;
  for (int i = 0; i < 4; ++i) result.q[i] = vdupq_n_s32(x);
  return result;
}
static inline v16 v16_from_int(v16i a) { V16_EACH(i, vcvtq_f32_s32(a.q[i])); }
static inline int32x4_t v4i_dot(int32x4_t sum, int8x16_t w, int8x16_t x) {
#if defined(__ARM_FEATURE_DOTPROD)
  return vdotq_s32(sum, w, x);
#else
  const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(x)), high = vmull_s8(vget_high_s8(w), vget_high_s8(x));
  return vaddq_s32(sum, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
#endif
}
/* Adds w . x in every lane: four weights of -128 .. 127, stored + 128, and the four int8 in x4. */
static inline v16i v16i_dot_q8(v16i sum, const uint8_t *w, int32_t x4) {
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(x4));
  for (int i = 0; i < 4; ++i) {
    const int8x16_t q = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + 16 * i), vdupq_n_u8(0x80)));
    sum.q[i] = v4i_dot(sum.q[i], q, x);
  }
  return sum;
}

/* Vectors of 64 bytes: 16 rows of four. */
typedef struct {
  uint8x16_t q[4];
} v16b;

#define V16B_EACH(i, expression)        \
  v16b result;                          \
  for (int i = 0; i < 4; ++i) {         \
    result.q[i] = (expression);         \
  }                                     \
  return result
#define V16I_EACH(i, expression)        \
  v16i result;                          \
  for (int i = 0; i < 4; ++i) {         \
    result.q[i] = (expression);         \
  }                                     \
  return result

static inline v16b v16b_load(const uint8_t *p) { V16B_EACH(i, vld1q_u8(p + 16 * i)); }
static inline void v16b_store(uint8_t *p, v16b a) {
  for (int i = 0; i < 4; ++i) vst1q_u8(p + 16 * i, a.q[i]);
}
static inline v16b v16b_and(v16b a, int mask) { V16B_EACH(i, vandq_u8(a.q[i], vdupq_n_u8((uint8_t)mask))); }
static inline v16b v16b_or(v16b a, v16b b) { V16B_EACH(i, vorrq_u8(a.q[i], b.q[i])); }
static inline v16b v16b_shl(v16b a, int n) { V16B_EACH(i, vshlq_u8(a.q[i], vdupq_n_s8((int8_t)n))); }
static inline v16b v16b_shr(v16b a, int n) { return v16b_shl(a, -n); }
/* 16 bytes, four times. */
static inline v16b v16b_set_quarters(const uint8_t *p) { V16B_EACH(i, vld1q_u8(p)); }
/* Of every quarter, the bytes at these places of 0 .. 15 in it. */
static inline v16b v16b_lookup(v16b quarters, v16b places) { V16B_EACH(i, vqtbl1q_u8(quarters.q[i], places.q[i])); }
/* Bytes of a and b in turn: the first eight of every quarter, the last eight. */
static inline v16b v16b_zip_first(v16b a, v16b b) { V16B_EACH(i, vzip1q_u8(a.q[i], b.q[i])); }
static inline v16b v16b_zip_last(v16b a, v16b b) { V16B_EACH(i, vzip2q_u8(a.q[i], b.q[i])); }
/* 32 bf16 values: those at even and at odd places. */
static inline void v16_from_bf16_pairs(v16b pairs, v16 *even, v16 *odd) {
  for (int i = 0; i < 4; ++i) {
    const uint32x4_t words = vreinterpretq_u32_u8(pairs.q[i]);
    even->q[i] = vreinterpretq_f32_u32(vshlq_n_u32(words, 16));
    odd->q[i] = vreinterpretq_f32_u32(vandq_u32(words, vdupq_n_u32(0xffff0000u)));
  }
}
/* Adds w . x in every lane: four weights of 0 .. 63, and the four int8 in x4. */
static inline v16i v16i_dot(v16i sum, v16b w, int32_t x4) {
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(x4));
  V16I_EACH(i, v4i_dot(sum.q[i], vreinterpretq_s8_u8(w.q[i]), x));
}
static inline v16i v16i_from_halves(uint16x8_t low, uint16x8_t high) {
  return (v16i){{vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(low))), vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(low))),
                 vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(high))),
                 vreinterpretq_s32_u32(vmovl_u16(vget_high_u16(high)))}};
}
static inline v16i v16i_load_unsigned(const uint8_t *p) {
  const uint8x16_t bytes = vld1q_u8(p);
  return v16i_from_halves(vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
}
static inline v16i v16i_load_signed(const uint8_t *p) {
  const int8x16_t bytes = vreinterpretq_s8_u8(vld1q_u8(p));
  const int16x8_t low = vmovl_s8(vget_low_s8(bytes)), high = vmovl_s8(vget_high_s8(bytes));
  return (v16i){{vmovl_s16(vget_low_s16(low)), vmovl_s16(vget_high_s16(low)), vmovl_s16(vget_low_s16(high)),
                 vmovl_s16(vget_high_s16(high))}};
}
/* Pairs of int8, widened: those at even and at odd places. */
typedef struct {
  int16x8_t even[2], odd[2];
} v16p;
static inline v16p v16p_load(const uint8_t *p) {
  const int8x16x2_t pairs = vld2q_s8((const int8_t *)p);
  return (v16p){{vmovl_s8(vget_low_s8(pairs.val[0])), vmovl_s8(vget_high_s8(pairs.val[0]))},
                {vmovl_s8(vget_low_s8(pairs.val[1])), vmovl_s8(vget_high_s8(pairs.val[1]))}};
}
/* Adds w . x in every lane: a pair, and the pair of int16 in x2. */
static inline v16i v16i_add_pairs(v16i sum, v16p w, int32_t x2) {
  const int16_t first = (int16_t)x2, second = (int16_t)(x2 >> 16);
  for (int i = 0; i < 2; ++i) {
    int32x4_t *to = sum.q + 2 * i;
    to[0] = vmlal_n_s16(vmlal_n_s16(to[0], vget_low_s16(w.even[i]), first), vget_low_s16(w.odd[i]), second);
    to[1] = vmlal_n_s16(vmlal_n_s16(to[1], vget_high_s16(w.even[i]), first), vget_high_s16(w.odd[i]), second);
  }
  return sum;
}
static inline v16i v16i_of_bits(v16 a) { V16I_EACH(i, vreinterpretq_s32_f32(a.q[i])); }
static inline v16 v16_of_bits(v16i a) { V16_EACH(i, vreinterpretq_f32_s32(a.q[i])); }
static inline v16i v16i_and(v16i a, int mask) { V16I_EACH(i, vandq_s32(a.q[i], vdupq_n_s32(mask))); }
static inline v16i v16i_or(v16i a, v16i b) { V16I_EACH(i, vorrq_s32(a.q[i], b.q[i])); }
static inline v16i v16i_shl(v16i a, int n) { V16I_EACH(i, vshlq_s32(a.q[i], vdupq_n_s32(n))); }
static inline v16i v16i_shr(v16i a, int n) { return v16i_shl(a, -n); }
