/*
 * linear over the other formats of GGUF: 4, 5 and 6 bits with scales and minima, in blocks of 32 or 256 inputs. Blocks of a
 * tile of 16 outputs come together and take as many bytes as in the file (checkpoint/tiles.ts has the layouts): binary16
 * scales, then for blocks of 256 their small scales, then groups of 32 inputs: upper bits, and four vectors of lower
 * halves. Those that have no minima stand in pairs, as q8_0 and q4_0 do (linear_quantized.h). Minima are multiplied with the sums of the inputs, which are at hand; integer sums are exact.
 */
#pragma once
#include "linear_quantized.h"

enum block_format { WEIGHT_Q4_1, WEIGHT_Q5_0, WEIGHT_Q5_1, WEIGHT_Q4_K, WEIGHT_Q5_K, WEIGHT_Q6_K };

static inline int is_large(enum block_format format) { return format >= WEIGHT_Q4_K; }
static inline int has_minima(enum block_format format) { return format != WEIGHT_Q5_0 && format != WEIGHT_Q6_K; }
static inline int groups_per_block(enum block_format format) { return is_large(format) ? 8 : 1; }
/* Vectors of upper bits in front of a group. */
static inline int upper_vectors(enum block_format format) {
  return format == WEIGHT_Q6_K ? 2 : format == WEIGHT_Q4_1 || format == WEIGHT_Q4_K ? 0 : 1;
}
/* What is subtracted from the stored integers. */
static inline int zero_point(enum block_format format) {
  return format == WEIGHT_Q5_0 ? 16 : format == WEIGHT_Q6_K ? 32 : 0;
}
/* Bytes of one block of a tile: its binary16 scales, its small ones, and one of its groups. */
static inline size_t scale_bytes(enum block_format format) { return SCALE_BYTES * (has_minima(format) ? 2 : 1); }
static inline size_t small_scale_bytes(enum block_format format) {
  return (size_t)TILE * (format == WEIGHT_Q6_K ? 16 : is_large(format) ? 12 : 0);
}
static inline size_t group_bytes(enum block_format format) { return (size_t)(64 * (4 + upper_vectors(format))); }
static inline size_t rest_bytes(enum block_format format) {
  return small_scale_bytes(format) + (size_t)groups_per_block(format) * group_bytes(format);
}
static inline size_t tile_block_bytes(enum block_format format) { return scale_bytes(format) + rest_bytes(format); }
static inline int blocks_per_row(enum block_format format, int in) { return in / BLOCK / groups_per_block(format); }
static inline size_t blocks_tile_bytes(enum block_format format, int in) {
  return whole_lines((size_t)blocks_per_row(format, in) * tile_block_bytes(format));
}
static inline __attribute__((always_inline)) struct block blocks_block_at(enum block_format format, const uint8_t *tile, int in,
                                                                          int b) {
  return block_at(tile, blocks_per_row(format, in), b, scale_bytes(format), rest_bytes(format));
}
static inline const uint8_t *group_at(enum block_format format, struct block block, int group) {
  return block.rest + small_scale_bytes(format) + (size_t)group * group_bytes(format);
}

/* Scales of 16 outputs for one group: of its first half, of its second half, and the minimum. */
struct group_scales {
  v16 low, high, minimum;
};

/* Six bits each of eight scales and eight minima, in twelve rows of 16 bytes: the later ones in two parts. */
static inline __attribute__((always_inline)) struct group_scales six_bit_scales(const uint8_t *small, int group, v16 d, v16 m) {
  const uint8_t *here = small + TILE * group;
  v16i scale, minimum;
  if (group < 4) {
    scale = v16i_and(v16i_load_unsigned(here), 63);
    minimum = v16i_and(v16i_load_unsigned(here + 4 * TILE), 63);
  } else {
    const v16i lower = v16i_load_unsigned(here + 4 * TILE);
    scale = v16i_or(v16i_and(lower, 15), v16i_and(v16i_shr(v16i_load_unsigned(here - 4 * TILE), 2), 48));
    minimum = v16i_or(v16i_shr(lower, 4), v16i_and(v16i_shr(v16i_load_unsigned(here), 2), 48));
  }
  const v16 both = v16_mul(d, v16_from_int(scale));
  return (struct group_scales){both, both, v16_sub(v16_zero(), v16_mul(m, v16_from_int(minimum)))};
}

static inline __attribute__((always_inline)) struct group_scales scales_of(enum block_format format, struct block block,
                                                                           int group) {
  const v16 d = v16_load_f16((const uint16_t *)block.scales);
  const v16 m = has_minima(format) ? v16_load_f16((const uint16_t *)(block.scales + SCALE_BYTES)) : v16_zero();
  if (format == WEIGHT_Q6_K) {
    const uint8_t *small = block.rest + 2 * TILE * group;
    const v16 high = v16_mul(d, v16_from_int(v16i_load_signed(small + TILE)));
    return (struct group_scales){v16_mul(d, v16_from_int(v16i_load_signed(small))), high, m};
  }
  if (is_large(format)) return six_bit_scales(block.rest, group, d, m);
  return (struct group_scales){d, d, m};
}

/* Vector j of a group: inputs 4j .. 4j + 3 and 16 + 4j .. 16 + 4j + 3 of 16 outputs. */
static inline __attribute__((always_inline)) void load_weights(enum block_format format, const uint8_t *group, int j, v16b *low,
                                                               v16b *high) {
  const v16b bytes = v16b_load(group + 64 * (upper_vectors(format) + j));
  *low = v16b_and(bytes, 15);
  *high = v16b_and(v16b_shr(bytes, 4), 15);
  if (upper_vectors(format) == 1) {
    const v16b fifth = v16b_load(group);
    *low = v16b_or(*low, v16b_and(v16b_shl(fifth, 4 - j), 16));
    *high = v16b_or(*high, v16b_and(v16b_shr(fifth, j), 16));
  } else if (upper_vectors(format) == 2) {
    const v16b first = v16b_load(group), second = v16b_load(group + 64);
    *low = v16b_or(*low, v16b_and(j < 2 ? v16b_shl(first, 4 - 2 * j) : v16b_shr(first, 2 * j - 4), 48));
    *high = v16b_or(*high, v16b_and(j < 2 ? v16b_shl(second, 4 - 2 * j) : v16b_shr(second, 2 * j - 4), 48));
  }
}

/* Adds a group of 32 inputs, number `at` of a row, to the sums of one tile. */
static inline __attribute__((always_inline)) void add_group(enum block_format format, int rows, int count, v16 *sums,
                                                            struct quantized_rows x, struct group_scales scales,
                                                            const uint8_t *group, int in, int at) {
  const int blocks = in / BLOCK, halves = format == WEIGHT_Q6_K;
  v16i low[8], high[8];
  int row[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    row[r] = r < count ? r : count - 1;
    const int32_t sum = x.sums[row[r] * blocks + at], first = x.half_sums[row[r] * blocks + at];
    low[r] = v16i_set(-zero_point(format) * (halves ? first : sum));
    high[r] = v16i_set(-zero_point(format) * (sum - first));
  }
  /* Vectors that a short sum has room for. With two sums of a row, there would be no registers for short ones. */
  const int together = upper_vectors(format) == 0 ? 4 : 2;
  v16s short_sums[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) short_sums[r] = v16s_begin(low[r]);
  for (int j = 0; j < 4; ++j) {
    v16b w_low, w_high;
    load_weights(format, group, j, &w_low, &w_high);
    UNROLL_ROWS
    for (int r = 0; r < rows; ++r) {
      const int8_t *values = x.values + (size_t)row[r] * (size_t)in + (size_t)at * BLOCK + 4 * j;
      const int32_t x_low = word_at(values), x_high = word_at(values + BLOCK / 2);
      if (halves) {
        low[r] = v16i_dot(low[r], w_low, x_low);
        high[r] = v16i_dot(high[r], w_high, x_high);
        continue;
      }
      short_sums[r] = v16s_dot(v16s_dot(short_sums[r], w_low, x_low), w_high, x_high);
      if (j % together < together - 1) continue;
      low[r] = v16s_end(short_sums[r], low[r]);
      short_sums[r] = v16s_begin(low[r]);
    }
  }
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) {
    const float scale = x.scales[row[r] * blocks + at];
    sums[r] = v16_fma(v16_mul(scales.low, v16_set(scale)), v16_from_int(low[r]), sums[r]);
    if (halves) sums[r] = v16_fma(v16_mul(scales.high, v16_set(scale)), v16_from_int(high[r]), sums[r]);
    if (has_minima(format)) sums[r] = v16_fma(scales.minimum, v16_set(scale * (float)x.sums[row[r] * blocks + at]), sums[r]);
  }
}

/* A tile of `rows` rows, a compile-time constant; `count` rows are there, as in linear_block. */
static inline __attribute__((always_inline)) void blocks_block(enum block_format format, int rows, int count, float *y,
                                                               struct quantized_rows x, const uint8_t *weight,
                                                               const float *bias, int in, int out, int tile) {
  v16 sums[8];
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r) sums[r] = v16_zero();
  const int groups = groups_per_block(format), blocks = blocks_per_row(format, in);
  for (int b = 0; b < blocks; ++b) {
    const struct block block = blocks_block_at(format, weight + (size_t)tile * blocks_tile_bytes(format, in), in, b);
    for (int g = 0; g < groups; ++g) {
      const uint8_t *group = group_at(format, block, g);
      /* A group takes so many instructions that no processor looks ahead far enough by itself: without this, half of the
         memory's speed is left. */
      ask_ahead(group, group_bytes(format), PREFETCH_BYTES);
      add_group(format, rows, count, sums, x, scales_of(format, block, g), group, in, b * groups + g);
    }
  }
  UNROLL_ROWS
  for (int r = 0; r < rows; ++r)
    if (r < count) store_outputs(y + (size_t)r * (size_t)out, sums[r], bias, out, tile);
}

/* As linear_rows. */
static inline __attribute__((always_inline)) void blocks_rows(enum block_format format, int rows, float *y,
                                                              struct quantized_rows x, const uint8_t *weight,
                                                              const float *bias, int all_rows, int in, int out, int tile) {
  for (int r = 0; r < all_rows; r += rows)
    blocks_block(format, rows, all_rows - r < rows ? all_rows - r : rows, y + (size_t)r * (size_t)out, rows_from(x, r, in),
                 weight, bias, in, out, tile);
}

static inline __attribute__((always_inline)) void blocks_tiles(enum block_format format, struct worker *me, float *y,
                                                               struct quantized_rows x, const void *weight,
                                                               const float *bias, int rows, int in, int out,
                                                               struct range tiles) {
  for (int t = tiles.begin; t < tiles.end; ++t) {
    if (rows == 1) blocks_block(format, 1, 1, y, x, weight, bias, in, out, t);
    else if (rows <= SIMD_ROWS) blocks_rows(format, SIMD_ROWS, y, x, weight, bias, rows, in, out, t);
    else blocks_rows(format, SIMD_MANY_ROWS, y, x, weight, bias, rows, in, out, t);
  }
  me->bytes_read += (uint64_t)(tiles.end - tiles.begin) * blocks_tile_bytes(format, in);
}

static inline float lane_of(v16 values, int lane) {
  float lanes[TILE];
  v16_store(lanes, values);
  return lanes[lane];
}

static inline float blocks_element(enum block_format format, const uint8_t *table, int token, int feature, int width) {
  const int group = feature / BLOCK, i = feature % BLOCK, lane = token % TILE, groups = groups_per_block(format);
  const uint8_t *tile = table + (size_t)(token / TILE) * blocks_tile_bytes(format, width);
  const struct block block = blocks_block_at(format, tile, width, group / groups);
  const struct group_scales scales = scales_of(format, block, group % groups);
  const uint8_t *data = group_at(format, block, group % groups);
  const int j = i % 16 / 4, k = i % 4, second = i / 16;
  const int byte = data[64 * (upper_vectors(format) + j) + 4 * lane + k];
  int q = second ? byte >> 4 : byte & 15;
  if (upper_vectors(format) == 1) q |= (data[4 * lane + k] >> (4 * second + j) & 1) << 4;
  if (upper_vectors(format) == 2) q |= (data[64 * second + 4 * lane + k] >> (2 * j) & 3) << 4;
  const float value = lane_of(second ? scales.high : scales.low, lane) * (float)(q - zero_point(format));
  return has_minima(format) ? value + lane_of(scales.minimum, lane) : value;
}

#define DEFINE_BLOCKS(dtype, format)                                                                                     \
  static __attribute__((noinline, unused)) void dtype##_linear(struct worker *me, float *y, struct quantized_rows x,     \
                                                               const void *weight, const float *bias, int rows, int in,  \
                                                               int out, struct range tiles) {                            \
    blocks_tiles(format, me, y, x, weight, bias, rows, in, out, tiles);                                                  \
  }                                                                                                                      \
  static __attribute__((noinline, unused)) void dtype##_embed(struct worker *me, float *y, const int32_t *tokens,        \
                                                              const void *table, int rows, int width, float scale,       \
                                                              struct range features) {                                   \
    for (int row = 0; row < rows; ++row)                                                                                 \
      for (int i = features.begin; i < features.end; ++i)                                                                \
        y[(size_t)row * (size_t)width + (size_t)i] = blocks_element(format, table, tokens[row], i, width) * scale;       \
    me->bytes_read += (uint64_t)rows * (uint64_t)(features.end - features.begin) * tile_block_bytes(format) /            \
                      (uint64_t)(TILE * BLOCK * groups_per_block(format));                                               \
  }

DEFINE_BLOCKS(q4_1, WEIGHT_Q4_1)
DEFINE_BLOCKS(q5_0, WEIGHT_Q5_0)
DEFINE_BLOCKS(q5_1, WEIGHT_Q5_1)
DEFINE_BLOCKS(q4_k, WEIGHT_Q4_K)
DEFINE_BLOCKS(q5_k, WEIGHT_Q5_K)
DEFINE_BLOCKS(q6_k, WEIGHT_Q6_K)
