/*
 * linear: y[rows, out] = x[rows, in] . weight[out, in] (+ bias). Weights come in tiles of 16 outputs, stored along `in`, so
 * that one vector holds one input's weights for 16 outputs: no sums across lanes, and one walk through memory.
 *   f32, f16: [out / 16][in][16]     bf16: [out / 16][in / 2][16][2]     bf16z: linear_compressed.h
 * where `in` is rounded up to an even number; what was added is 0, and is not used.
 * Every (row, output) is summed in the same order, in two sums (even and odd inputs, or pairs of them), whatever the number of
 * rows or workers: a token's value does not depend on its neighbours.
 */
#pragma once
#include "linear_compressed.h"

enum weight_format { WEIGHT_F32, WEIGHT_F16, WEIGHT_BF16, WEIGHT_BF16Z };

/* Inputs of a row as matrices in bf16 want them: as they are, or rounded to bf16, in pairs that a worker has in its own memory,
 * where the instruction set has products of bfloat16. */
#ifdef SIMD_BF16_PRODUCTS
typedef uint16_t bf16_input;
/* Of a row: an odd number of inputs has a 0 behind it. */
static inline size_t bf16_inputs(int in) { return ((size_t)in + 1) / 2 * 2; }

static __attribute__((noinline, unused)) void round_rows(const struct worker *me, uint64_t offset, const float *x, int rows,
                                                         int in) {
  bf16_input *to = own(me, offset);
  for (int row = 0; row < rows; ++row, x += in, to += bf16_inputs(in)) {
    int i = 0;
    for (; i + 16 <= in; i += 16) v16_store_bf16(to + i, v16_load(x + i));
    if (i == in) continue;
    uint16_t rest[16];
    v16_store_bf16(rest, v16_load_part(x + i, in - i));
    memcpy(to + i, rest, (bf16_inputs(in) - (size_t)i) * sizeof *rest);
  }
}
static inline const bf16_input *rounded_at(const struct worker *me, uint64_t offset, const float *x) {
  (void)x;
  return own(me, offset);
}
#else
typedef float bf16_input;
static inline size_t bf16_inputs(int in) { return (size_t)in; }
static inline void round_rows(const struct worker *me, uint64_t offset, const float *x, int rows, int in) {
  (void)me, (void)offset, (void)x, (void)rows, (void)in;
}
static inline const bf16_input *rounded_at(const struct worker *me, uint64_t offset, const float *x) {
  (void)me, (void)offset;
  return x;
}
#endif

static inline bool is_bf16(enum weight_format format) { return format == WEIGHT_BF16 || format == WEIGHT_BF16Z; }
/* Bytes from one row of inputs to the next. */
static inline size_t row_bytes(enum weight_format format, int in) {
  return is_bf16(format) ? bf16_inputs(in) * sizeof(bf16_input) : (size_t)in * sizeof(float);
}

static inline __attribute__((always_inline)) void load_two_inputs(enum weight_format format, const uint8_t *tile, int input,
                                                                  v16 *even, v16 *odd) {
  if (format == WEIGHT_F32) {
    const float *w = (const float *)tile + (size_t)input * TILE;
    *even = v16_load(w);
    *odd = v16_load(w + TILE);
  } else if (format == WEIGHT_F16) {
    const uint16_t *w = (const uint16_t *)tile + (size_t)input * TILE;
    *even = v16_load_f16(w);
    *odd = v16_load_f16(w + TILE);
  } else {
    v16_from_bf16_pairs(v16b_load(tile + (size_t)input * TILE * sizeof(uint16_t)), even, odd);
  }
}

static inline size_t tile_bytes(enum weight_format format, int in) {
  if (format == WEIGHT_BF16Z) return compressed_tile_bytes(in);
  return ((size_t)in + 1) / 2 * 2 * TILE * (format == WEIGHT_F32 ? sizeof(float) : sizeof(uint16_t));
}

/* The outputs of a tile, as far as the matrix has them. */
static inline __attribute__((always_inline)) void store_outputs(float *y, v16 sums, const float *bias, int out, int tile) {
  const int feature = tile * TILE, count = out - feature < TILE ? out - feature : TILE;
  v16_store_part(y + feature, bias ? v16_add(sums, v16_load_part(bias + feature, count)) : sums, count);
}

#define UNROLL_ROWS UNROLL(8)

/* Adds inputs i and i + 1 to the sums of `rows` rows of floats. */
static inline __attribute__((always_inline)) void add_two_inputs(int rows, v16 *even, v16 *odd, const void *const *row, int i,
                                                                 v16 w_even, v16 w_odd) {
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    const float *x = row[r];
    even[r] = v16_fma(w_even, v16_set(x[i]), even[r]);
    odd[r] = v16_fma(w_odd, v16_set(x[i + 1]), odd[r]);
  }
}

/* The same for weights in bf16 and rows of bf16_input. Pairs of four inputs have different sums, so that they need not wait for each
 * other: `second` says which. */
static inline __attribute__((always_inline)) void add_pair(int rows, v16 *even, v16 *odd, const void *const *row, int i,
                                                           bool second, v16b pair) {
#ifdef SIMD_BF16_PRODUCTS
  v16 *sums = second ? odd : even;
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) sums[r] = v16_add_products(sums[r], pair, word_at((const bf16_input *)row[r] + i));
#else
  (void)second;
  v16 w_even, w_odd;
  v16_from_bf16_pairs(pair, &w_even, &w_odd);
  add_two_inputs(rows, even, odd, row, i, w_even, w_odd);
#endif
}

/* The same of weights that are stored as they are. */
static inline __attribute__((always_inline)) void add_stored_pair(enum weight_format format, int rows, v16 *even, v16 *odd,
                                                                  const void *const *row, const uint8_t *stored, int i,
                                                                  bool second) {
  ask_ahead(stored, tile_bytes(format, 2), prefetch_bytes(rows));
  if (is_bf16(format)) {
    add_pair(rows, even, odd, row, i, second, v16b_load(stored));
    return;
  }
  v16 w_even, w_odd;
  load_two_inputs(format, stored, 0, &w_even, &w_odd);
  add_two_inputs(rows, even, odd, row, i, w_even, w_odd);
}

static inline __attribute__((always_inline)) void add_tile(enum weight_format format, int rows, v16 *even, v16 *odd,
                                                           const void *const *row, const uint8_t *tile, int in) {
  const int inputs = (int)(is_bf16(format) ? bf16_inputs(in) : (size_t)in);
  const size_t pair = tile_bytes(format, 2);
#ifdef SIMD_BF16_PRODUCTS
  const bool two_sums = is_bf16(format);
#else
  const bool two_sums = false;
#endif
  int i = 0;
  for (; two_sums && i + 3 < inputs; i += 4, tile += 2 * pair) {
    add_stored_pair(format, rows, even, odd, row, tile, i, false);
    add_stored_pair(format, rows, even, odd, row, tile + pair, i + 2, true);
  }
  for (; i + 1 < inputs; i += 2, tile += pair) add_stored_pair(format, rows, even, odd, row, tile, i, false);
  if (inputs % 2 == 0) return;
  v16 w_even, w_odd;
  load_two_inputs(format, tile, 0, &w_even, &w_odd);
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) even[r] = v16_fma(w_even, v16_set(((const float *)row[r])[in - 1]), even[r]);
}

/* The same of groups of a tile of bf16z that have no exceptions. */
static inline __attribute__((always_inline)) void add_groups(int rows, v16 *even, v16 *odd, const void *const *row,
                                                             const struct compressed_tile *tile, int begin, int end) {
  for (int group = begin; group < end; ++group) {
    ask_ahead(tile->groups + (size_t)group * COMPRESSED_GROUP_BYTES, COMPRESSED_GROUP_BYTES, prefetch_bytes(rows));
    UNROLL(2)
    for (int half = 0; half < 2; ++half) {
      v16b pairs[2];
      load_half_group(tile, group, half, pairs);
      UNROLL(2)
      for (int p = 0; p < 2; ++p)
        add_pair(rows, even, odd, row, group * COMPRESSED_INPUTS + 4 * half + 2 * p, p == 1, pairs[p]);
    }
  }
}

/* The same of a tile of bf16z. */
static inline __attribute__((always_inline)) void add_compressed_tile(int rows, v16 *even, v16 *odd, const void *const *row,
                                                                      struct compressed_tile tile, int in) {
  const int groups = in / COMPRESSED_INPUTS;
  uint32_t exception = 0;
  for (int group = 0;;) {
    const int exceptional = group_of_exception(&tile, exception), end = exceptional < groups ? exceptional : groups;
    add_groups(rows, even, odd, row, &tile, group, end);
    if (end == groups) return;
    uint8_t expanded[EXPANDED_GROUP_BYTES];
    const void *from[8];
    expand_group(&tile, end, expanded);
    exception = restore_exceptions(&tile, exception, end, expanded);
    for (int r = 0; r < rows; ++r) from[r] = (const bf16_input *)row[r] + end * COMPRESSED_INPUTS;
    add_tile(WEIGHT_BF16, rows, even, odd, from, expanded, COMPRESSED_INPUTS);
    group = end + 1;
  }
}

/* A tile of `rows` rows, a compile-time constant so that the sums stay in registers. Where `count` rows are fewer, the last one
 * is computed again in the place of those that are not there. */
static inline __attribute__((always_inline)) void linear_block(enum weight_format format, int rows, int count, float *y,
                                                               const void *x, const uint8_t *weight, const float *bias,
                                                               int in, int out, int tile) {
  v16 even[8], odd[8];
  const void *row[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    row[r] = (const uint8_t *)x + (size_t)(r < count ? r : count - 1) * row_bytes(format, in);
    even[r] = odd[r] = v16_zero();
  }
  if (format == WEIGHT_BF16Z) add_compressed_tile(rows, even, odd, row, compressed_tile_at(weight, in), in);
  else add_tile(format, rows, even, odd, row, weight, in);
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r)
    if (r < count) store_outputs(y + (size_t)r * (size_t)out, v16_add(even[r], odd[r]), bias, out, tile);
}

/* `rows` at once, until all are done: the weights come from memory for the first ones only. */
static inline __attribute__((always_inline)) void linear_rows(enum weight_format format, int rows, float *y, const void *x,
                                                              const uint8_t *weight, const float *bias, int all_rows,
                                                              int in, int out, int tile) {
  for (int r = 0; r < all_rows; r += rows)
    linear_block(format, rows, all_rows - r < rows ? all_rows - r : rows, y + (size_t)r * (size_t)out,
                 (const uint8_t *)x + (size_t)r * row_bytes(format, in), weight, bias, in, out, tile);
}

/* Tile by tile, so that the weights are a single stream. A tile of bf16z that is read again for other rows is written into
 * `expanded` first, as one of bf16. */
static inline __attribute__((always_inline)) void linear_tiles(enum weight_format format, struct worker *me, float *y,
                                                               const void *x, const void *weight, const float *bias,
                                                               int rows, int in, int out, struct range tiles,
                                                               uint8_t *expanded) {
  for (int t = tiles.begin; t < tiles.end; ++t) {
    const uint8_t *tile = (const uint8_t *)weight + (size_t)t * tile_bytes(format, in);
    if (rows == 1) {
      linear_block(format, 1, 1, y, x, tile, bias, in, out, t);
    } else if (rows <= SIMD_ROWS) {
      linear_rows(format, SIMD_ROWS, y, x, tile, bias, rows, in, out, t);
    } else if (format == WEIGHT_BF16Z && rows > SIMD_MANY_ROWS) {
      expand_tile(compressed_tile_at(tile, in), in, expanded);
      linear_rows(WEIGHT_BF16, SIMD_MANY_ROWS, y, x, expanded, bias, rows, in, out, t);
    } else {
      linear_rows(format, SIMD_MANY_ROWS, y, x, tile, bias, rows, in, out, t);
    }
  }
  me->bytes_read += (uint64_t)(tiles.end - tiles.begin) * tile_bytes(format, in);
}

#define DEFINE_LINEAR(dtype, input, format)                                                                              \
  static __attribute__((noinline, unused)) void dtype##_linear(struct worker *me, float *y, const input *x,              \
                                                               const void *weight, const float *bias, int rows, int in,  \
                                                               int out, struct range tiles) {                            \
    linear_tiles(format, me, y, x, weight, bias, rows, in, out, tiles, NULL);                                            \
  }

DEFINE_LINEAR(f32, float, WEIGHT_F32)
DEFINE_LINEAR(f16, float, WEIGHT_F16)
DEFINE_LINEAR(bf16, bf16_input, WEIGHT_BF16)

/* `expanded` has room for a tile of bf16. */
static __attribute__((noinline, unused)) void bf16z_linear(struct worker *me, float *y, const bf16_input *x, const void *weight,
                                                           const float *bias, int rows, int in, int out, struct range tiles,
                                                           uint8_t *expanded) {
  linear_tiles(WEIGHT_BF16Z, me, y, x, weight, bias, rows, in, out, tiles, expanded);
}

/* The chunk's tiles of `features` outputs. */
static inline struct range tiles_of(const struct worker *me, int features) {
  return part_of(me, (features + TILE - 1) / TILE);
}
/* Tiles of heads that have `width` outputs each. */
static inline struct range head_tiles(struct range heads, int width) {
  return (struct range){heads.begin * width / TILE, heads.end * width / TILE};
}
/* The features that a range of tiles covers. */
static inline struct range features_of(struct range tiles, int features) {
  const int end = tiles.end * TILE;
  return (struct range){tiles.begin * TILE < features ? tiles.begin * TILE : features, end < features ? end : features};
}

/* y[rows, features] = table[tokens] * scale; the table is stored in tiles. */
static inline __attribute__((always_inline)) float tile_element(enum weight_format format, const uint8_t *table, int token,
                                                                int feature, int width) {
  const uint8_t *tile = table + (size_t)(token / TILE) * tile_bytes(format, width);
  const int lane = token % TILE;
  v16 even, odd;
  float lanes[TILE];
  load_two_inputs(format, tile, feature & ~1, &even, &odd);
  v16_store(lanes, feature & 1 ? odd : even);
  return lanes[lane];
}

#define DEFINE_EMBED(dtype, format)                                                                                      \
  static __attribute__((noinline, unused)) void dtype##_embed(struct worker *me, float *y, const int32_t *tokens,        \
                                                              const void *table, int rows, int width, float scale,       \
                                                              struct range features) {                                   \
    for (int row = 0; row < rows; ++row)                                                                                 \
      for (int i = features.begin; i < features.end; ++i)                                                                \
        y[(size_t)row * (size_t)width + (size_t)i] = tile_element(format, table, tokens[row], i, width) * scale;         \
    me->bytes_read += (uint64_t)rows * (uint64_t)(features.end - features.begin) * (tile_bytes(format, 2) / (2 * TILE));       \
  }

DEFINE_EMBED(f32, WEIGHT_F32)
DEFINE_EMBED(f16, WEIGHT_F16)
DEFINE_EMBED(bf16, WEIGHT_BF16)

/* The same; of bf16z a group is written as one of bf16 first. */
static __attribute__((noinline, unused)) void bf16z_embed(struct worker *me, float *y, const int32_t *tokens, const void *table,
                                                          int rows, int width, float scale, struct range features) {
  for (int row = 0; row < rows; ++row) {
    const size_t start = (size_t)(tokens[row] / TILE) * compressed_tile_bytes(width);
    const struct compressed_tile tile = compressed_tile_at((const uint8_t *)table + start, width);
    const int lane = tokens[row] % TILE;
    float *to = y + (size_t)row * (size_t)width;
    uint32_t exception = 0;
    for (int group = features.begin / COMPRESSED_INPUTS; group * COMPRESSED_INPUTS < features.end; ++group) {
      uint8_t expanded[EXPANDED_GROUP_BYTES];
      expand_group(&tile, group, expanded);
      while (group_of_exception(&tile, exception) < group) ++exception;
      exception = restore_exceptions(&tile, exception, group, expanded);
      for (int j = 0; j < COMPRESSED_INPUTS; ++j) {
        const int i = group * COMPRESSED_INPUTS + j;
        if (i >= features.begin && i < features.end)
          to[i] = tile_element(WEIGHT_BF16, expanded, lane, j, COMPRESSED_INPUTS) * scale;
      }
    }
  }
  me->bytes_read += (uint64_t)rows * (uint64_t)(features.end - features.begin) * 3 / 2;
}
