/*
 * How the KV cache is stored, by format. Positions stand in tiles of 16. In a tile of keys every dimension of all 16
 * positions stands together, so that a vector holds 16 positions: scores need no sums across lanes, as outputs need none
 * (linear.h). Values stand position by position: there a vector holds dimensions.
 *
 *   keys    f32: [dim][16]     bf16: [dim / 2][16][2]     q8_0: a tile of weights (linear_quantized.h)
 *   values  f32: [16][dim]     bf16: [8][dim][2]          q8_0: [dim / 32][16] scales, [8][dim][2]
 *
 * In bf16 two dimensions of a key, and the values of two positions, stand side by side: what products of bfloat16 take, and one
 * load gives two vectors elsewhere. With such products, queries and weights of positions are rounded to bf16. q8_0 is GGUF's in
 * its numbers: for every 32 dimensions of a position a binary16 scale and int8. Its keys are multiplied as weights of q8_0 are,
 * with queries that are int8 as well: one instruction where float32 takes several. Its values stand in
 * pairs as well, and are multiplied with weights of positions that are int16.
 */
#pragma once
#include <stdint.h>
#include <string.h>
#include "engine.h"
#include "linear_quantized.h"

/* Query heads that are computed together where they share keys and values. */
#define GROUP 4
/* The most vectors of values that are summed together. */
#define VALUES_AT_ONCE 4
#define UNROLL_ALL UNROLL(4)

/* Elements of a block of q8_0, and its bytes. */
#define KV_BLOCK 32
#define KV_BLOCK_BYTES 34

/* How far ahead of itself a walk through keys or values asks for memory, of which it reads so much: a run of one is as long as a
 * block, and where it begins, and while scores become weights, no processor looks ahead by itself. Asked for all at once,
 * before a tile, instead of line by line, it gives a part of this only. */
#define CONTEXT_AHEAD 8192
static inline __attribute__((always_inline)) void ask_for_context(const void *walk, size_t bytes) {
  for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch((const uint8_t *)walk + CONTEXT_AHEAD + at, 0, 3);
}

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

/* Elements of the cache per position of a head; a tile takes 16 times as many, all together. */
static inline int f32_position(int dim) { return dim; }
static inline int bf16_position(int dim) { return dim; }
static inline int q8_0_position(int dim) { return dim / KV_BLOCK * KV_BLOCK_BYTES; }

/* Stores a position of a tile from float32. */
static inline void f32_store_key(float *tile, int position, const float *from, int dim) {
  for (int i = 0; i < dim; ++i) tile[i * TILE + position] = from[i];
}
static inline void f32_store_value(float *tile, int position, const float *from, int dim) {
  memcpy(tile + (size_t)position * (size_t)dim, from, (size_t)dim * sizeof *tile);
}

static inline void bf16_store_key(uint16_t *tile, int position, const float *from, int dim) {
  for (int i = 0; i < dim; ++i) tile[i / 2 * 2 * TILE + 2 * position + i % 2] = to_bf16(from[i]);
}
static inline void bf16_store_value(uint16_t *tile, int position, const float *from, int dim) {
  uint16_t *to = tile + (size_t)(position / 2) * 2 * (size_t)dim + position % 2;
  for (int i = 0; i < dim; ++i) to[2 * i] = to_bf16(from[i]);
}

/* The int8 of a block, and its scale. */
static inline uint16_t quantize_block(int8_t *to, const float *from) {
  float largest = 0.0f;
  for (int i = 0; i < KV_BLOCK; ++i) largest = fabsf(from[i]) > largest ? fabsf(from[i]) : largest;
  const float scale = largest / 127.0f, inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  for (int i = 0; i < KV_BLOCK; ++i) {
    /* Ties away from zero. What is not a number, or was infinite, is 0: no integer stands for it. */
    const float q = from[i] * inverse;
    to[i] = (int8_t)(fabsf(q) < 128.0f ? (int)(q < 0.0f ? (double)q - 0.5 : (double)q + 0.5) : 0);
  }
  return to_f16(scale);
}
static inline void q8_0_store_key(uint8_t *tile, int position, const float *from, int dim) {
  for (int i = 0; i < dim; i += KV_BLOCK) {
    int8_t quantized[KV_BLOCK];
    const struct block block = quantized_block_at(WEIGHT_Q8_0, tile, dim / KV_BLOCK, i / KV_BLOCK);
    const uint16_t scale = quantize_block(quantized, from + i);
    memcpy(tile + (block.scales - tile) + (size_t)position * sizeof scale, &scale, sizeof scale);
    uint8_t *to = tile + (block.rest - tile) + 4 * position;
    for (int j = 0; j < KV_BLOCK; ++j) to[64 * (j / 4) + j % 4] = (uint8_t)(quantized[j] + 128);
  }
}
static inline void q8_0_store_value(uint8_t *tile, int position, const float *from, int dim) {
  uint8_t *to = tile + (size_t)(dim / KV_BLOCK) * TILE * sizeof(uint16_t) + (size_t)(position / 2) * 2 * (size_t)dim + position % 2;
  for (int i = 0; i < dim; i += KV_BLOCK) {
    int8_t quantized[KV_BLOCK];
    const uint16_t scale = quantize_block(quantized, from + i);
    for (int j = 0; j < KV_BLOCK; ++j) to[2 * (i + j)] = (uint8_t)quantized[j];
    memcpy(tile + ((size_t)(i / KV_BLOCK) * TILE + (size_t)position) * sizeof scale, &scale, sizeof scale);
  }
}

/* Two dimensions of the keys of a tile. */
static inline void f32_load_keys(const float *tile, int i, v16 *even, v16 *odd) {
  *even = v16_load(tile + i * TILE);
  *odd = v16_load(tile + (i + 1) * TILE);
}
static inline void bf16_load_keys(const uint16_t *tile, int i, v16 *even, v16 *odd) {
  v16_from_bf16_pairs(v16b_load((const uint8_t *)(tile + i * TILE)), even, odd);
}

/* Queries of `heads` heads of a row as scores want them: made once, in a worker's own memory at `offset`, and found there. */
typedef const float *f32_queries;
static inline void f32_make_queries(const struct worker *me, uint64_t offset, int row, const float *q, int heads, int dim) {
  (void)me, (void)offset, (void)row, (void)q, (void)heads, (void)dim;
}
static inline f32_queries f32_queries_at(const struct worker *me, uint64_t offset, int row, const float *q, int heads, int dim) {
  (void)me, (void)offset, (void)row, (void)heads, (void)dim;
  return q;
}
static inline f32_queries f32_queries_from(f32_queries q, int head, int dim) { return q + head * dim; }

typedef const bf16_input *bf16_queries;
static inline uint64_t bf16_queries_offset(uint64_t offset, int row, int heads, int dim) {
  return offset + (uint64_t)row * (uint64_t)heads * bf16_inputs(dim) * sizeof(bf16_input);
}
static inline void bf16_make_queries(const struct worker *me, uint64_t offset, int row, const float *q, int heads, int dim) {
  round_rows(me, bf16_queries_offset(offset, row, heads, dim), q, heads, dim);
}
static inline bf16_queries bf16_queries_at(const struct worker *me, uint64_t offset, int row, const float *q, int heads,
                                           int dim) {
  return rounded_at(me, bf16_queries_offset(offset, row, heads, dim), q);
}
static inline bf16_queries bf16_queries_from(bf16_queries q, int head, int dim) { return q + (size_t)head * bf16_inputs(dim); }

typedef struct quantized_rows q8_0_queries;
static inline uint64_t q8_0_queries_offset(uint64_t offset, int row, int heads, int dim) {
  return offset + (uint64_t)row * quantized_bytes(heads, dim);
}
static inline void q8_0_make_queries(const struct worker *me, uint64_t offset, int row, const float *q, int heads, int dim) {
  quantize_rows(me, q8_0_queries_offset(offset, row, heads, dim), q, heads, dim);
}
static inline q8_0_queries q8_0_queries_at(const struct worker *me, uint64_t offset, int row, const float *q, int heads,
                                           int dim) {
  (void)q;
  return quantized_at(me, q8_0_queries_offset(offset, row, heads, dim), heads, dim);
}
static inline q8_0_queries q8_0_queries_from(q8_0_queries q, int head, int dim) { return rows_from(q, head, dim); }

/* sums[h] = dot products of `heads` queries of `dim` dimensions (both constants) and 16 keys. A head has several
 * sums side by side where there are few heads, so that none waits for itself. */
#define DEFINE_DOTS(name, element, load_keys)                                                                            \
  static inline __attribute__((always_inline)) void name(int heads, int dim, v16 *sums, const float *q,                  \
                                                         const element *tile) {                                          \
    const int chains = heads > 2 ? SIMD_SUMS / 4 : heads > 1 ? SIMD_SUMS / 2 : 4;                                        \
    v16 sum[GROUP][4];                                                                                                   \
    for (int h = 0; h < heads; ++h)                                                                                      \
      for (int c = 0; c < chains; ++c) sum[h][c] = v16_zero();                                                           \
    for (int i = 0; i < dim; i += 4) {                                                                                   \
      UNROLL_ALL                                                                                                         \
      for (int c = 0; c < 4; c += 2) {                                                                                   \
        if (i + c >= dim) continue;                                                                                      \
        v16 even, odd;                                                                                                   \
        ask_for_context(tile + (i + c) * TILE, 2 * TILE * sizeof *tile);                                                 \
        load_keys(tile, i + c, &even, &odd);                                                                             \
        UNROLL_ALL                                                                                                       \
        for (int h = 0; h < heads; ++h) {                                                                                \
          v16 *first = &sum[h][c % chains], *second = &sum[h][(c + 1) % chains];                                         \
          *first = v16_fma(v16_set(q[h * dim + i + c]), even, *first);                                                   \
          *second = v16_fma(v16_set(q[h * dim + i + c + 1]), odd, *second);                                              \
        }                                                                                                                \
      }                                                                                                                  \
    }                                                                                                                    \
    for (int h = 0; h < heads; ++h) {                                                                                    \
      sums[h] = sum[h][0];                                                                                               \
      for (int c = 1; c < chains; ++c) sums[h] = v16_add(sums[h], sum[h][c]);                                            \
    }                                                                                                                    \
  }

DEFINE_DOTS(f32_dots, float, f32_load_keys)
#ifdef SIMD_BF16_PRODUCTS
static inline __attribute__((always_inline)) void bf16_dots(int heads, int dim, v16 *sums, bf16_queries q,
                                                            const uint16_t *tile) {
  v16 sum[GROUP][4];
  for (int h = 0; h < heads; ++h)
    for (int c = 0; c < 4; ++c) sum[h][c] = v16_zero();
  for (int i = 0; i < dim; i += 8) {
    UNROLL_ALL
    for (int c = 0; c < 4; ++c) {
      if (i + 2 * c >= dim) continue;
      ask_for_context(tile + (i + 2 * c) * TILE, 2 * TILE * sizeof *tile);
      const v16b keys = v16b_load((const uint8_t *)(tile + (i + 2 * c) * TILE));
      UNROLL_ALL
      for (int h = 0; h < heads; ++h)
        sum[h][c] = v16_add_products(sum[h][c], keys, word_at(bf16_queries_from(q, h, dim) + i + 2 * c));
    }
  }
  for (int h = 0; h < heads; ++h) sums[h] = v16_add(v16_add(sum[h][0], sum[h][1]), v16_add(sum[h][2], sum[h][3]));
}
#else
DEFINE_DOTS(bf16_dots, uint16_t, bf16_load_keys)
#endif

static inline __attribute__((always_inline)) void q8_0_dots(int heads, int dim, v16 *sums, q8_0_queries q, const uint8_t *tile) {
  static const int rows[GROUP] = {0, 1, 2, 3};
  const int blocks = dim / BLOCK;
  for (int h = 0; h < heads; ++h) sums[h] = v16_zero();
  for (int b = 0; b < blocks; ++b) {
    const struct block block = quantized_block_at(WEIGHT_Q8_0, tile, blocks, b);
    ask_for_context(block.rest, block_bytes(WEIGHT_Q8_0));
    add_block(WEIGHT_Q8_0, heads, sums, q, rows, block, dim, b);
  }
}

/* Weights of the positions `begin` .. `end` of a block, as values want them, from those in float32, of which heads are `stride`
 * apart: x_make_weights, which may use `memory`. Sums of values are of a type of their own, in which they are kept until
 * all positions of the block are summed: x_finish_sums then makes float32 of them. */
#define FLOAT_SUMS(dtype)                                                                                                \
  typedef const float *dtype##_weights;                                                                                  \
  typedef v16 dtype##_sums;                                                                                              \
  static inline v16 dtype##_load_sums(const float *from, int left) { return v16_load_part(from, left); }                 \
  static inline void dtype##_store_sums(float *to, v16 sums, int left) { v16_store_part(to, sums, left); }               \
  static inline void dtype##_finish_sums(float *sums, int heads, int dim, dtype##_weights weights) {                     \
    (void)sums, (void)heads, (void)dim, (void)weights;                                                                   \
  }

FLOAT_SUMS(f32)
static inline f32_weights f32_make_weights(void *memory, float *weights, int heads, int stride, int dim, const float *values,
                                           int begin, int end) {
  (void)memory, (void)heads, (void)stride, (void)dim, (void)values, (void)begin, (void)end;
  return weights;
}

/* Rounded to bf16, in the place of the floats, where there are products of it. */
FLOAT_SUMS(bf16)
static inline bf16_weights bf16_make_weights(void *memory, float *weights, int heads, int stride, int dim,
                                             const uint16_t *values, int begin, int end) {
  (void)memory, (void)heads, (void)stride, (void)dim, (void)values, (void)begin, (void)end;
#ifdef SIMD_BF16_PRODUCTS
  for (int h = 0; h < heads; ++h)
    for (int p = begin & -TILE; p < end; p += TILE)
      v16_store_bf16((uint16_t *)(weights + h * stride) + p, v16_load(weights + h * stride + p));
#endif
  return weights;
}
static inline float bf16_weight(const float *weights, int position) {
#ifdef SIMD_BF16_PRODUCTS
  uint16_t upper;
  memcpy(&upper, (const uint8_t *)weights + (size_t)position * sizeof upper, sizeof upper);
  const uint32_t bits = (uint32_t)upper << 16;
  float weight;
  memcpy(&weight, &bits, sizeof weight);
  return weight;
#else
  return weights[position];
#endif
}

/* Of every head and every 32 dimensions: weights times scales of the positions, in steps of a 32767th of the largest of them, and
 * that step; 0 for positions beside `begin` .. `end`. Sums of products are exact integers, which have room for 512 positions. */
typedef struct {
  const int16_t *integers;
  const float *steps;
} q8_0_weights;
typedef v16i q8_0_sums;

/* The bits of integers, in the place of the floats that they become; dimensions are whole vectors. */
static inline v16i q8_0_load_sums(const float *from, int left) {
  (void)left;
  return v16i_of_bits(v16_load(from));
}
static inline void q8_0_store_sums(float *to, v16i sums, int left) {
  (void)left;
  v16_store(to, v16_of_bits(sums));
}

/* Weights times scales of a tile of positions that begins at position `at`. What is beside `begin` .. `end` may not be a number. */
static inline v16 scaled_weights(const float *weights, const uint8_t *scales, int at, int begin, int end) {
  v16 scaled = v16_mul(v16_load(weights + at), v16_load_f16((const uint16_t *)scales));
  if (at >= begin && at + TILE <= end) return scaled;
  float lanes[TILE];
  v16_store(lanes, scaled);
  for (int p = 0; p < TILE; ++p)
    if (at + p < begin || at + p >= end) lanes[p] = 0.0f;
  return v16_load(lanes);
}
static inline q8_0_weights q8_0_make_weights(void *memory, float *weights, int heads, int stride, int dim, const uint8_t *values,
                                             int begin, int end) {
  const int blocks = dim / KV_BLOCK;
  float *steps = memory;
  int16_t *integers = (int16_t *)(steps + (size_t)heads * (size_t)blocks);
  for (int i = 0; i < heads * blocks; ++i) {
    const float *from = weights + i / blocks * stride;
    const uint8_t *scales = values + (size_t)(i % blocks) * TILE * sizeof(uint16_t);
    v16 top = v16_zero();
    for (int p = begin & -TILE; p < end; p += TILE)
      top = v16_max(top, scaled_weights(from, scales + (size_t)p * (size_t)q8_0_position(dim), p, begin, end));
    const float largest = v16_largest(top);
    /* Below that there is no inverse. */
    const v16 inverse = v16_set(largest > 1e-33f ? 32767.0f / largest : 0.0f);
    steps[i] = largest / 32767.0f;
    for (int p = begin & -TILE; p < end; p += TILE) {
      const v16 scaled = scaled_weights(from, scales + (size_t)p * (size_t)q8_0_position(dim), p, begin, end);
      v16_store_int16(integers + (size_t)i * (size_t)stride + p, v16_round(v16_mul(scaled, inverse)));
    }
  }
  return (q8_0_weights){integers, steps};
}
static inline void q8_0_finish_sums(float *sums, int heads, int dim, q8_0_weights weights) {
  for (int i = 0; i < heads * dim; i += 16)
    v16_store(sums + i, v16_mul(v16_from_int(q8_0_load_sums(sums + i, 16)), v16_set(weights.steps[i / KV_BLOCK])));
}

/* x_weigh: sums[h] += weights[h][p] * values[p] for the positions `begin` .. `end` of the tile that begins at position `at`: 16 x
 * `vectors` dimensions from `first` on of `heads` query heads. All but the positions are constants; weights of heads are `stride`
 * apart. */
static inline __attribute__((always_inline)) void f32_weigh(int heads, int dim, int first, int vectors,
                                                            v16 sums[GROUP][VALUES_AT_ONCE], f32_weights weights, int stride,
                                                            const float *tile, int at, int begin, int end) {
  for (int p = begin; p < end; ++p) {
    const float *values = tile + (size_t)p * (size_t)dim + first;
    UNROLL_ALL
    for (int j = 0; j < vectors; ++j) {
      const int left = dim - first - 16 * j;
      ask_for_context(values + 16 * j, TILE * sizeof *values);
      const v16 value = left < 16 ? v16_load_part(values + 16 * j, left) : v16_load(values + 16 * j);
      UNROLL_ALL
      for (int h = 0; h < heads; ++h) sums[h][j] = v16_fma(v16_set(weights[h * stride + at + p]), value, sums[h][j]);
    }
  }
}

/* The values of two positions, `left` dimensions of 16. */
static inline v16b bf16_load_values(const uint16_t *values, int left) {
  if (left >= 16) return v16b_load((const uint8_t *)values);
  uint16_t whole[2 * 16] = {0};
  memcpy(whole, values, 2 * (size_t)left * sizeof *values);
  return v16b_load((const uint8_t *)whole);
}

/* One of the two positions: the other one is not to be read, whatever is there. */
static inline __attribute__((always_inline)) void bf16_weigh_one(int heads, int dim, int first, int vectors,
                                                                 v16 sums[GROUP][VALUES_AT_ONCE], const float *weights,
                                                                 int stride, const uint16_t *tile, int at, int p) {
  const uint16_t *values = tile + (size_t)(p / 2) * 2 * (size_t)dim + 2 * first;
  for (int j = 0; j < vectors; ++j) {
    v16 one, other;
    v16_from_bf16_pairs(bf16_load_values(values + 32 * j, dim - first - 16 * j), &one, &other);
    for (int h = 0; h < heads; ++h)
      sums[h][j] = v16_fma(v16_set(bf16_weight(weights + h * stride, at + p)), p % 2 == 0 ? one : other, sums[h][j]);
  }
}

static inline __attribute__((always_inline)) void bf16_weigh(int heads, int dim, int first, int vectors,
                                                             v16 sums[GROUP][VALUES_AT_ONCE], const float *weights, int stride,
                                                             const uint16_t *tile, int at, int begin, int end) {
  int p = begin;
  if (p % 2 != 0) bf16_weigh_one(heads, dim, first, vectors, sums, weights, stride, tile, at, p++);
  for (; p + 1 < end; p += 2) {
    const uint16_t *values = tile + (size_t)p * (size_t)dim + 2 * first;
    UNROLL_ALL
    for (int j = 0; j < vectors; ++j) {
      ask_for_context(values + 32 * j, 2 * TILE * sizeof *values);
      const v16b pair = bf16_load_values(values + 32 * j, dim - first - 16 * j);
#ifdef SIMD_BF16_PRODUCTS
      UNROLL_ALL
      for (int h = 0; h < heads; ++h)
        sums[h][j] = v16_add_products(sums[h][j], pair, word_at((const bf16_input *)(weights + h * stride) + at + p));
#else
      v16 one, other;
      v16_from_bf16_pairs(pair, &one, &other);
      UNROLL_ALL
      for (int h = 0; h < heads; ++h) {
        const float *both = weights + h * stride + at + p;
        sums[h][j] = v16_fma(v16_set(both[1]), other, v16_fma(v16_set(both[0]), one, sums[h][j]));
      }
#endif
    }
  }
  if (p < end) bf16_weigh_one(heads, dim, first, vectors, sums, weights, stride, tile, at, p);
}

static inline __attribute__((always_inline)) void q8_0_weigh(int heads, int dim, int first, int vectors,
                                                             v16i sums[GROUP][VALUES_AT_ONCE], q8_0_weights weights, int stride,
                                                             const uint8_t *tile, int at, int begin, int end) {
  const int blocks = dim / KV_BLOCK;
  const uint8_t *values = tile + (size_t)blocks * TILE * sizeof(uint16_t) + 2 * first;
  for (int p = begin & -2; p < end; p += 2) {
    UNROLL_ALL
    for (int j = 0; j < vectors; ++j) {
      const uint8_t *from = values + (size_t)p * (size_t)dim + 32 * j;
      if (j % 2 == 0) ask_for_context(from, CACHE_LINE);
      const v16p pair = v16p_load(from);
      UNROLL_ALL
      for (int h = 0; h < heads; ++h) {
        const int row = h * blocks + (first + 16 * j) / KV_BLOCK;
        sums[h][j] = v16i_add_pairs(sums[h][j], pair, word_at(weights.integers + row * stride + at + p));
      }
    }
  }
}
