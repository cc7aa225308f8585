/*
 * Tiles of quantized weights: for every 32 columns a block of 16 binary16 scales, and vectors of [16 outputs][4 bytes]:
 *   q8_0: eight of them, bytes q + 128 of columns 4j .. 4j + 3
 *   q4_0: four of them, q + 8 of columns 4j .. 4j + 3 in the lower halves and of 16 + 4j .. 16 + 4j + 3 in the upper ones
 * Two blocks stand together, scales of both and then vectors; a last one without another stands alone. Tiles begin at
 * multiples of 64 bytes.
 * Values and scales are those of GGUF's blocks, bit for bit. Inputs are made int8 by blocks of 32 as well, once per stage, so
 * that four products are one instruction: the products of a lane in a block sum up to an exact integer, and only the scales
 * and the sums over blocks are float32. That is the arithmetic of the cpu backend; what it loses is the rounding of inputs
 * to 1/254 of the largest of their block.
 */
#pragma once
#include "ring.cuh"

#define BLOCK_COLUMNS 32

/* int8[rows][in], and a scale for every block. */
struct int8_rows {
  int8_t *values;
  float *scales;
};

/* Room for rows of int8 and their scales: in shared memory where they fit. 9 bytes for 8 inputs. */
DEVICE struct int8_rows int8_room(struct worker *me, int rows, int in, uint64_t offset) {
  const int64_t blocks = (int64_t)rows * (in / BLOCK_COLUMNS);
  float *scales = own_rows(me, 9 * blocks, offset);
  return {(int8_t *)(scales + blocks), scales};
}

/* x = value * scale, scale = the largest magnitude / 127. A warp takes four blocks at once, a lane four numbers of one. */
DEVICE_CALL void quantize_rows(struct worker *me, struct int8_rows to, const float *x, int rows, int in) {
  const int blocks = rows * (in / BLOCK_COLUMNS);
#pragma unroll 4
  for (int first = me->warp * 4; first < blocks; first += COMPUTE_WARPS * 4) {
    const int block = first + me->lane / 8;
    const size_t at = (size_t)(block < blocks ? block : first) * BLOCK_COLUMNS + (size_t)(me->lane % 8 * 4);
    const vec16 four = *(const vec16 *)(x + at);
    float largest = 0.0f;
    for (int i = 0; i < 4; ++i) largest = fmaxf(largest, fabsf(bits_to_float(four.word[i])));
    for (int mask = 1; mask < 8; mask *= 2) largest = fmaxf(largest, shuffle_xor(largest, mask));
    const float scale = largest / 127.0f;
    /* The inverse of a smaller number than this is infinite: such inputs are 0. */
    const float inverse = scale >= 1.17549435e-38f ? 1.0f / scale : 0.0f;
    uint32_t packed = 0;
    for (int i = 0; i < 4; ++i)
      packed |= ((uint32_t)(int)rintf(bits_to_float(four.word[i]) * inverse) & 0xffu) << (8 * i);
    if (block >= blocks) continue;
    *(uint32_t *)(to.values + at) = packed;
    if (me->lane % 8 == 0) to.scales[block] = scale;
  }
}

/* @param BITS of a weight: 8 or 4 */
template <int BITS>
struct block_tiles {
  typedef struct int8_rows input;
  static constexpr int scale_bytes = 16 * 2, vector_bytes = 16 * BLOCK_COLUMNS * BITS / 8;
  static constexpr int block_bytes = scale_bytes + vector_bytes;
  /* Whole pairs of blocks, whose scales come with them. */
  static constexpr int slice_bytes = SLICE_BYTES / (2 * block_bytes) * (2 * block_bytes);
  /* Blocks that a warp takes at once, 512 bytes of weights. */
  static constexpr int at_once = 8 / BITS;
  static_assert(slice_bytes > 0, "a slice holds two blocks");

  struct block {
    const uint16_t *scales;
    const uint8_t *vectors;
  };

  /* Block `b` of the `blocks` of a tile, or of a slice of it. */
  DEVICE_MEMBER struct block block_at(const uint8_t *tile, int blocks, int b) {
    const int together = (b | 1) < blocks ? 2 : 1, before = b % together;
    const uint8_t *start = tile + (b - before) * block_bytes;
    return {(const uint16_t *)(start + before * scale_bytes), start + together * scale_bytes + before * vector_bytes};
  }

  DEVICE_MEMBER int tile_bytes(int in) { return (in / BLOCK_COLUMNS * block_bytes + 63) / 64 * 64; }
  DEVICE_MEMBER struct int8_rows row_of(struct int8_rows x, int row, int in) {
    return {x.values + (size_t)row * (size_t)in, x.scales + (size_t)row * (size_t)(in / BLOCK_COLUMNS)};
  }

  /* The sum of a lane's products for output i: 4 or 8 of them, an exact integer. `low`, `high`: inputs of its columns. */
  DEVICE_MEMBER int dot(uint32_t weights, uint32_t low, uint32_t high, int bias) {
    if (BITS == 8) return dot_of_bytes(weights ^ 0x80808080u, low, 0);
    return dot_of_bytes(weights & 0x0f0f0f0fu, low, dot_of_bytes(weights >> 4 & 0x0f0f0f0fu, high, bias));
  }

  /* @param at bytes of the tile before this slice */
  template <int ROWS>
  DEVICE_MEMBER void add_slice(float sums[ROWS][4], const struct worker *me, const uint8_t *slice, int bytes,
                               struct int8_rows x, int rows, int in, int at) {
    constexpr int lanes = 32 / at_once;
    const int first_block = at / block_bytes, blocks = bytes / block_bytes, lane = me->lane % lanes;
#pragma unroll 2
    for (int b = me->warp * at_once + me->lane / lanes; b < blocks; b += COMPUTE_WARPS * at_once) {
      const struct block block = block_at(slice, blocks, b);
      const vec16 v = *(const vec16 *)(block.vectors + lane * 16);
      const uint16_t *halves = block.scales + lane % 4 * 4;
      float scales[4];
      for (int i = 0; i < 4; ++i) scales[i] = half_to_float(halves[i]);
      const size_t column = (size_t)(first_block + b) * BLOCK_COLUMNS + (size_t)(lane / 4 * 4);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        /* Rows that are not there are computed as the last one, and not used. */
        const struct int8_rows row = row_of(x, r < rows ? r : rows - 1, in);
        const uint32_t low = *(const uint32_t *)(row.values + column);
        const uint32_t high = BITS == 8 ? 0 : *(const uint32_t *)(row.values + column + 16);
        /* Weights of four bits are stored + 8. */
        const int bias = BITS == 8 ? 0 : dot_of_bytes(0xf8f8f8f8u, low, dot_of_bytes(0xf8f8f8f8u, high, 0));
        const float x_scale = row.scales[first_block + b];
#pragma unroll
        for (int i = 0; i < 4; ++i)
          sums[r][i] = fmaf(scales[i] * x_scale, (float)dot(v.word[i], low, high, bias), sums[r][i]);
      }
    }
  }

  static constexpr bool by_tensor_cores = true;

  /*
   * The same for GROUPS groups of eight rows: a block is one product of the tensor cores, whose integers are exact. Outputs 2g
   * and 2g + 1 are its rows g and g + 8, so that a lane loads both at once.
   */
  template <int GROUPS>
  DEVICE_MEMBER void add_slice_wide(float sums[GROUPS][4], const struct worker *me, const uint8_t *slice, int bytes,
                                    struct int8_rows x, int rows, int in, int at) {
    const int g = me->lane / 4, t = me->lane % 4, blocks = bytes / block_bytes;
    for (int b = me->warp; b < blocks; b += COMPUTE_WARPS) {
      const struct block block = block_at(slice, blocks, b);
      const uint8_t *words = block.vectors + t * 64 + g * 8;
      const vec8 first = *(const vec8 *)words;
      const vec8 second = BITS == 8 ? *(const vec8 *)(words + 256) : first;
      uint32_t a[4];
      for (int i = 0; i < 2; ++i) {
        a[i] = BITS == 8 ? first.word[i] ^ 0x80808080u : minus_eight(first.word[i] & 0x0f0f0f0fu);
        a[2 + i] = BITS == 8 ? second.word[i] ^ 0x80808080u : minus_eight(second.word[i] >> 4 & 0x0f0f0f0fu);
      }
      const float scales[2] = {half_to_float(block.scales[2 * g]), half_to_float(block.scales[2 * g + 1])};
      const int x_block = at / block_bytes + b;
#pragma unroll
      for (int n = 0; n < GROUPS; ++n) {
        const struct int8_rows row = row_of(x, n * 8 + g < rows ? n * 8 + g : rows - 1, in);
        const uint32_t *values = (const uint32_t *)(row.values + (size_t)x_block * BLOCK_COLUMNS) + t;
        const uint32_t columns[2] = {values[0], values[4]};
        int32_t dots[4] = {0, 0, 0, 0};
        mma_int8(dots, a, columns);
        for (int i = 0; i < 4; ++i) {
          const int r = n * 8 + 2 * t + i % 2;
          const float x_scale = row_of(x, r < rows ? r : rows - 1, in).scales[x_block];
          sums[n][i] = fmaf(scales[i / 2] * x_scale, (float)dots[i], sums[n][i]);
        }
      }
    }
  }

  /* Of every byte, which is 0 to 15. */
  DEVICE_MEMBER uint32_t minus_eight(uint32_t bytes) { return ((bytes | 0x80808080u) - 0x08080808u) ^ 0x80808080u; }

  DEVICE_MEMBER float element(const uint8_t *tile, int lane, int feature, int width) {
    const struct block block = block_at(tile, width / BLOCK_COLUMNS, feature / BLOCK_COLUMNS);
    const int i = feature % BLOCK_COLUMNS, byte = block.vectors[i % (4 * BITS) / 4 * 64 + lane * 4 + i % 4];
    const float scale = half_to_float(block.scales[lane]);
    if (BITS == 8) return scale * (float)(byte - 128);
    return scale * (float)((i < 16 ? byte & 15 : byte >> 4) - 8);
  }
};

typedef block_tiles<8> q8_0_tiles;
typedef block_tiles<4> q4_0_tiles;
