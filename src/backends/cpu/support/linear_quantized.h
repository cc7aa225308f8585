/*
 * linear over quantized weights. A block of 32 inputs of a tile of 16 outputs is 16 binary16 scales, and integers: q8_0
 * has eight vectors of [16][4] bytes q + 128; q4_0 has four of [16][4] bytes, inputs 4j .. 4j + 3 in the lower halves and
 * 16 + 4j .. 16 + 4j + 3 in the upper ones, stored q + 8. Values and scales are those of GGUF's blocks, bit for bit.
 * Two blocks stand together, scales of both and then integers, so that no vector lies over the border of two cache lines.
 * Inputs are quantized to int8 by blocks of 32 as well; the sums of a block are exact integers.
 */
#pragma once
#include <math.h>
#include "engine.h"
#include "linear.h"

#define BLOCK 32

enum quantized_format { WEIGHT_Q8_0, WEIGHT_Q4_0 };

/* A row of 16 binary16 scales. */
#define SCALE_BYTES (TILE * sizeof(uint16_t))

static inline size_t integer_bytes(enum quantized_format format) {
  return (size_t)TILE * (format == WEIGHT_Q8_0 ? BLOCK : BLOCK / 2);
}
static inline size_t block_bytes(enum quantized_format format) { return SCALE_BYTES + integer_bytes(format); }

static inline size_t whole_lines(size_t bytes) { return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }

static inline size_t quantized_tile_bytes(enum quantized_format format, int in) {
  return whole_lines((size_t)(in / BLOCK) * block_bytes(format));
}

/* Of 16 outputs: their binary16 scales, and the rest. */
struct block {
  const uint8_t *scales, *rest;
};

/* Block `b` of the `blocks` of a tile. Scales that are half a cache line stand beside those of a neighbour, if there is one. */
static inline __attribute__((always_inline)) struct block block_at(const uint8_t *tile, int blocks, int b, size_t scale_bytes,
                                                                   size_t rest_bytes) {
  const int together = scale_bytes < CACHE_LINE && (b | 1) < blocks ? 2 : 1, before = together == 2 ? b % 2 : 0;
  const uint8_t *start = tile + (size_t)(b - before) * (scale_bytes + rest_bytes);
  return (struct block){start + (size_t)before * scale_bytes,
                        start + (size_t)together * scale_bytes + (size_t)before * rest_bytes};
}
static inline __attribute__((always_inline)) struct block quantized_block_at(enum quantized_format format, const uint8_t *tile,
                                                                             int blocks, int b) {
  return block_at(tile, blocks, b, SCALE_BYTES, integer_bytes(format));
}

/* Rows of int8; scale, sum, and sum of the first half of every block of them. Where q8_0 takes magnitudes (SIMD_Q8_MAGNITUDES), x * q
 * is |x| * q, or |x| * (~q + 1) where x is negative: magnitudes, what makes q or ~q of a stored q + 128 (bits to flip), and minus
 * the sum of the negative values of every block. */
struct quantized_rows {
  int8_t *values, *magnitudes, *flips;
  float *scales;
  int32_t *sums, *half_sums, *negatives;
};

/* Bytes of them. */
static inline uint64_t quantized_bytes(int rows, int in) {
  return (uint64_t)rows * (uint64_t)(in / BLOCK) * (3 * BLOCK + sizeof(float) + 3 * sizeof(int32_t));
}

static inline struct quantized_rows quantized_at(const struct worker *me, uint64_t offset, int rows, int in) {
  const size_t blocks = (size_t)rows * (size_t)(in / BLOCK), bytes = BLOCK * blocks;
  int8_t *values = own(me, offset);
  float *scales = (float *)(values + 3 * bytes);
  int32_t *sums = (int32_t *)(scales + blocks);
  return (struct quantized_rows){values, values + bytes, values + 2 * bytes, scales, sums, sums + blocks, sums + 2 * blocks};
}

/* What q8_0 takes besides of block `b`. */
static inline void store_magnitudes(struct quantized_rows to, size_t b) {
  int32_t sum = 0;
  for (size_t i = b * BLOCK; i < (b + 1) * BLOCK; ++i) {
    const int value = to.values[i];
    to.magnitudes[i] = (int8_t)(value < 0 ? -value : value);
    to.flips[i] = (int8_t)(value < 0 ? 127 : -128);
    sum += value < 0 ? -value : 0;
  }
  to.negatives[b] = sum;
}

static __attribute__((noinline, unused)) void quantize_rows(const struct worker *me, uint64_t offset, const float *x, int rows,
                                                            int in) {
  const struct quantized_rows to = quantized_at(me, offset, rows, in);
  for (int block = 0; block < rows * (in / BLOCK); ++block) {
    const v16 low = v16_load(x + (size_t)block * BLOCK), high = v16_load(x + (size_t)block * BLOCK + 16);
    const v16 magnitude = v16_max(v16_max(low, v16_sub(v16_zero(), low)), v16_max(high, v16_sub(v16_zero(), high)));
    const float scale = v16_largest(magnitude) / 127.0f;
    const v16 inverse = v16_set(scale > 0.0f ? 1.0f / scale : 0.0f);
    const v16 first = v16_round(v16_mul(low, inverse)), second = v16_round(v16_mul(high, inverse));
    v16_store_int8(to.values + (size_t)block * BLOCK, first);
    v16_store_int8(to.values + (size_t)block * BLOCK + BLOCK / 2, second);
#ifdef SIMD_Q8_MAGNITUDES
    store_magnitudes(to, (size_t)block);
#endif
    to.scales[block] = scale;
    /* Sums of so few whole numbers are exact. */
    to.half_sums[block] = (int32_t)v16_sum(first);
    to.sums[block] = (int32_t)v16_sum(v16_add(first, second));
  }
}

/* A sum of products that may be kept in narrower lanes from v16s_begin to v16s_end, which adds it to what it was begun with.
 * 16 bits have room for so many products of a pair of int8 and weights below a power of two: 8 for 16, 4 for 32, 2 for 64. */
#ifndef SIMD_SHORT_SUMS
typedef v16i v16s;
static inline v16s v16s_begin(v16i sum) { return sum; }
static inline v16s v16s_dot(v16s sum, v16b w, int32_t x4) { return v16i_dot(sum, w, x4); }
static inline v16i v16s_end(v16s sum, v16i begun) {
  (void)begun;
  return sum;
}
#endif

/* Adds the products of four weights of q8_0 in every lane and of the inputs from `at` on; and what a sum of block `b` begins with. */
static inline v16i add_q8_0(v16i sum, const uint8_t *w, struct quantized_rows x, size_t at) {
#ifdef SIMD_Q8_MAGNITUDES
  return v16i_dot_flipped(sum, w, word_at(x.magnitudes + at), word_at(x.flips + at));
#else
  return v16i_dot_q8(sum, w, word_at(x.values + at));
#endif
}
static inline int32_t begin_q8_0(struct quantized_rows x, int b) {
#ifdef SIMD_Q8_MAGNITUDES
  return x.negatives[b];
#else
  return -SIMD_Q8_BIAS * x.sums[b];
#endif
}

/* Adds the products of the integers at `bytes` and of block `b` of the rows. */
static inline __attribute__((always_inline)) void add_products(enum quantized_format format, int rows, v16i *dots,
                                                               struct quantized_rows x, const int *row, const uint8_t *bytes,
                                                               int in, int b) {
  if (format == WEIGHT_Q8_0) {
    for (int j = 0; j < 8; ++j)
      UNROLL_ROWS
      for (int r = 0; r < rows; ++r) {
        const size_t at = (size_t)row[r] * (size_t)in + (size_t)b * BLOCK + 4 * (size_t)j;
        dots[r] = add_q8_0(dots[r], bytes + 64 * j, x, at);
      }
    return;
  }
  v16s sums[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) sums[r] = v16s_begin(dots[r]);
  for (int j = 0; j < 4; ++j) {
    const v16b both = v16b_load(bytes + 64 * j);
    const v16b low = v16b_and(both, 15), high = v16b_and(v16b_shr(both, 4), 15);
    UNROLL_ROWS
    for (int r = 0; r < rows; ++r) {
      const int8_t *values = x.values + (size_t)row[r] * (size_t)in + (size_t)b * BLOCK + 4 * j;
      sums[r] = v16s_dot(v16s_dot(sums[r], low, word_at(values)), high, word_at(values + BLOCK / 2));
    }
  }
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) dots[r] = v16s_end(sums[r], dots[r]);
}

/* Adds block `b` of 16 outputs to the sums of `rows` rows, a constant: those numbered in `row`, of `in` inputs. */
static inline __attribute__((always_inline)) void add_block(enum quantized_format format, int rows, v16 *sums,
                                                            struct quantized_rows x, const int *row, struct block block,
                                                            int in, int b) {
  const int blocks = in / BLOCK;
  const v16 scales = v16_load_f16((const uint16_t *)block.scales);
  v16i dots[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    const int at = row[r] * blocks + b;
    dots[r] = v16i_set(format == WEIGHT_Q8_0 ? begin_q8_0(x, at) : -8 * x.sums[at]);
  }
  add_products(format, rows, dots, x, row, block.rest, in, b);
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r)
    sums[r] = v16_fma(v16_mul(scales, v16_set(x.scales[row[r] * blocks + b])), v16_from_int(dots[r]), sums[r]);
}

/* A tile of `rows` rows, a compile-time constant; `count` rows are there, as in linear_block. */
static inline __attribute__((always_inline)) void quantized_block(enum quantized_format format, int rows, int count, float *y,
                                                                  struct quantized_rows x, const uint8_t *weight,
                                                                  const float *bias, int in, int out, int tile) {
  v16 sums[8];
  int row[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    row[r] = r < count ? r : count - 1;
    sums[r] = v16_zero();
  }
  const int blocks = in / BLOCK;
  const uint8_t *walk = weight + (size_t)tile * quantized_tile_bytes(format, in);
  int b = 0;
  for (; b + 1 < blocks; b += 2, walk += 2 * block_bytes(format)) {
    ask_ahead(walk, 2 * block_bytes(format), prefetch_bytes(rows));
    add_block(format, rows, sums, x, row, quantized_block_at(format, walk, 2, 0), in, b);
    add_block(format, rows, sums, x, row, quantized_block_at(format, walk, 2, 1), in, b + 1);
  }
  if (b < blocks) add_block(format, rows, sums, x, row, quantized_block_at(format, walk, 1, 0), in, b);
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r)
    if (r < count) store_outputs(y + (size_t)r * (size_t)out, sums[r], bias, out, tile);
}

static inline struct quantized_rows rows_from(struct quantized_rows x, int row, int in) {
  const size_t r = (size_t)row, blocks = (size_t)(in / BLOCK);
  const size_t at = r * (size_t)in, block = r * blocks;
  return (struct quantized_rows){x.values + at,  x.magnitudes + at,   x.flips + at,        x.scales + block,
                                 x.sums + block, x.half_sums + block, x.negatives + block};
}

/* As linear_rows. */
static inline __attribute__((always_inline)) void quantized_rows_block(enum quantized_format format, int rows, float *y,
                                                                       struct quantized_rows x, const uint8_t *weight,
                                                                       const float *bias, int all_rows, int in, int out,
                                                                       int tile) {
  for (int r = 0; r < all_rows; r += rows)
    quantized_block(format, rows, all_rows - r < rows ? all_rows - r : rows, y + (size_t)r * (size_t)out,
                    rows_from(x, r, in), weight, bias, in, out, tile);
}

static inline __attribute__((always_inline)) void quantized_tiles(enum quantized_format format, struct worker *me, float *y,
                                                                  struct quantized_rows x, const void *weight,
                                                                  const float *bias, int rows, int in, int out,
                                                                  struct range tiles) {
  for (int t = tiles.begin; t < tiles.end; ++t) {
    if (rows == 1) quantized_block(format, 1, 1, y, x, weight, bias, in, out, t);
    else if (rows <= SIMD_ROWS) quantized_rows_block(format, SIMD_ROWS, y, x, weight, bias, rows, in, out, t);
    else quantized_rows_block(format, SIMD_MANY_ROWS, y, x, weight, bias, rows, in, out, t);
  }
  me->bytes_read += (uint64_t)(tiles.end - tiles.begin) * quantized_tile_bytes(format, in);
}

static inline float quantized_element(enum quantized_format format, const uint8_t *table, int token, int feature, int width) {
  const uint8_t *tile = table + (size_t)(token / TILE) * quantized_tile_bytes(format, width);
  const struct block block = quantized_block_at(format, tile, width / BLOCK, feature / BLOCK);
  const int lane = token % TILE, i = feature % BLOCK;
  float scales[TILE];
  v16_store(scales, v16_load_f16((const uint16_t *)block.scales));
  if (format == WEIGHT_Q8_0) return scales[lane] * (float)((int)block.rest[64 * (i / 4) + 4 * lane + i % 4] - 128);
  const int byte = block.rest[64 * (i % 16 / 4) + 4 * lane + i % 4];
  return scales[lane] * (float)((i < BLOCK / 2 ? byte & 15 : byte >> 4) - 8);
}

#define DEFINE_QUANTIZED(dtype, format)                                                                                  \
  static __attribute__((noinline, unused)) void dtype##_linear(struct worker *me, float *y, struct quantized_rows x,     \
                                                               const void *weight, const float *bias, int rows, int in,  \
                                                               int out, struct range tiles) {                            \
    quantized_tiles(format, me, y, x, weight, bias, rows, in, out, tiles);                                               \
  }                                                                                                                      \
  static __attribute__((noinline, unused)) void dtype##_embed(struct worker *me, float *y, const int32_t *tokens,        \
                                                              const void *table, int rows, int width, float scale,       \
                                                              struct range features) {                                   \
    for (int row = 0; row < rows; ++row)                                                                                 \
      for (int i = features.begin; i < features.end; ++i)                                                                \
        y[(size_t)row * (size_t)width + (size_t)i] = quantized_element(format, table, tokens[row], i, width) * scale;    \
    me->bytes_read += (uint64_t)rows * (uint64_t)(features.end - features.begin) * block_bytes(format) / (TILE * BLOCK); \
  }

DEFINE_QUANTIZED(q8_0, WEIGHT_Q8_0)
DEFINE_QUANTIZED(q4_0, WEIGHT_Q4_0)
