/*
 * What a position of the KV cache looks like in each format: `dtype_position(head_dim)` elements, stored from float32 and
 * loaded 16 at a time. q8_0 is GGUF's: blocks of a binary16 scale and 32 int8, so that heads are whole blocks.
 */
#pragma once
#include <stdint.h>
#include <string.h>

/* Elements of a block of q8_0, and its bytes. */
#define KV_BLOCK 32
#define KV_BLOCK_BYTES 34

/* Round to nearest, ties to even. */
static inline uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Round to nearest, ties to even; of what is not negative. */
static inline uint16_t to_f16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (bits > 0x7f800000u) return 0x7e00;
  if (bits >= 0x477ff000u) return 0x7c00;
  if (bits >= 0x38800000u) return (uint16_t)((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1u)) >> 13);
  /* Subnormal: the significand in units of 2^-24. */
  const uint32_t shift = 126 - (bits >> 23);
  if (shift > 24) return 0;
  const uint32_t significand = (bits & 0x7fffffu) | 0x800000u;
  const uint32_t quotient = significand >> shift, rest = significand & ((1u << shift) - 1), half = 1u << (shift - 1);
  return (uint16_t)(quotient + (rest > half || (rest == half && (quotient & 1u))));
}

static inline int f32_position(int head_dim) { return head_dim; }
static inline int bf16_position(int head_dim) { return head_dim; }
static inline int q8_0_position(int head_dim) { return head_dim / KV_BLOCK * KV_BLOCK_BYTES; }

static inline void f32_store_state(float *to, const float *from, int count) { memcpy(to, from, (size_t)count * sizeof *to); }
static inline void bf16_store_state(uint16_t *to, const float *from, int count) {
  for (int i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
}
static inline void q8_0_store_state(uint8_t *to, const float *from, int count) {
  for (; count >= KV_BLOCK; count -= KV_BLOCK, to += KV_BLOCK_BYTES, from += KV_BLOCK) {
    float largest = 0.0f;
    for (int i = 0; i < KV_BLOCK; ++i) largest = fabsf(from[i]) > largest ? fabsf(from[i]) : largest;
    const float scale = largest / 127.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
    const uint16_t stored = to_f16(scale);
    memcpy(to, &stored, sizeof stored);
    for (int i = 0; i < KV_BLOCK; ++i) {
      /* Ties away from zero. What is not a number, or was infinite, is 0: no integer stands for it. */
      const float q = from[i] * inverse;
      const int whole = fabsf(q) < 128.0f ? (int)(q < 0.0f ? (double)q - 0.5 : (double)q + 0.5) : 0;
      to[2 + i] = (uint8_t)(int8_t)whole;
    }
  }
}

/* Elements i .. i + 15 of a position, of which `count` are left. */
static inline v16 f32_load_state(const float *p, int i, int count) {
  return count >= 16 ? v16_load(p + i) : v16_load_part(p + i, count);
}
static inline v16 bf16_load_state(const uint16_t *p, int i, int count) {
  if (count >= 16) return v16_load_bf16(p + i);
  uint16_t whole[16] = {0};
  memcpy(whole, p + i, (size_t)count * sizeof *p);
  return v16_load_bf16(whole);
}
static inline v16 q8_0_load_state(const uint8_t *p, int i, int count) {
  (void)count;
  const uint8_t *block = p + (size_t)(i / KV_BLOCK) * KV_BLOCK_BYTES;
  return v16_mul(v16_set_f16((const uint16_t *)block), v16_from_int(v16i_load_signed(block + 2 + i % KV_BLOCK)));
}
