/*
 * linear: y[rows, out] = x[rows, in] . weight[out, in] (+ bias[out]), weights in the tiles of 16 outputs of the packed file:
 *   f32: [out / 16][in][16]          bf16: [out / 16][in / 2][16][2]
 * Both are 64 bytes for a group of columns, so that a lane's 16 bytes are four outputs: a warp reads 512 bytes in one
 * piece, and a number of x serves four outputs. A tile is one run of memory, which is what bulk copies like.
 *
 * All compute warps share a tile and put their sums together in a fixed order, whatever the number of rows or blocks: a
 * token's value does not depend on its neighbours.
 */
#pragma once
#include "ring.cuh"

enum weight_format { WEIGHT_F32, WEIGHT_BF16 };

template <enum weight_format FORMAT>
DEVICE int tile_bytes(int in) {
  const int columns = (in + 1) / 2 * 2;
  return columns * 16 * (FORMAT == WEIGHT_F32 ? 4 : 2);
}

/* 16 bytes of a tile: weights of four outputs at one or two columns. */
template <enum weight_format FORMAT>
DEVICE void unpack(const uint8_t *from, float first[4], float second[4]) {
  const vec16 v = *(const vec16 *)from;
  for (int i = 0; i < 4; ++i) {
    if (FORMAT == WEIGHT_F32) {
      first[i] = bits_to_float(v.word[i]);
      second[i] = 0.0f;
    } else {
      first[i] = bits_to_float(v.word[i] << 16);
      second[i] = bits_to_float(v.word[i] & 0xffff0000u);
    }
  }
}

/* Partial sums of a warp for one tile are put here, twice, so that one barrier per tile is enough. */
DEVICE float *partial_sums(int buffer, int warp) {
  return (float *)work_space() + (buffer * COMPUTE_WARPS + warp) * ROWS_AT_ONCE * 16;
}

/* One slice of a tile, from column `first_column` on. */
template <enum weight_format FORMAT, int ROWS>
DEVICE void linear_slice(float sums[ROWS][4], const struct worker *me, const uint8_t *slice, int bytes, const float *x, int rows,
                         int in, int first_column) {
  constexpr int columns = FORMAT == WEIGHT_F32 ? 1 : 2;
#pragma unroll 4
  for (int piece = me->thread; piece < bytes / 16; piece += COMPUTE_THREADS) {
    const int column = first_column + piece / 4 * columns;
    float first[4], second[4];
    unpack<FORMAT>(slice + piece * 16, first, second);
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
      /* Rows that are not there are computed as the last one, and not used. */
      const float *row = x + (size_t)(r < rows ? r : rows - 1) * (size_t)in;
      const float x0 = column < in ? row[column] : 0.0f;
      const float x1 = columns == 2 && column + 1 < in ? row[column + 1] : 0.0f;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        sums[r][i] = fmaf(first[i], x0, sums[r][i]);
        if (columns == 2) sums[r][i] = fmaf(second[i], x1, sums[r][i]);
      }
    }
  }
}

template <enum weight_format FORMAT, int ROWS>
DEVICE void linear_tile(struct worker *me, float *y, const float *x, const float *bias, int rows, int in, int out, int tile) {
  float sums[ROWS][4];
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[r][i] = 0.0f;
  const int bytes = tile_bytes<FORMAT>(in);
  for (int at = 0; at < bytes; at += SLICE_BYTES) {
    const int size = bytes - at < SLICE_BYTES ? bytes - at : SLICE_BYTES;
    const uint8_t *slice = ring_take(me);
    linear_slice<FORMAT, ROWS>(sums, me, slice, size, x, rows, in, at / 64 * (FORMAT == WEIGHT_F32 ? 1 : 2));
    ring_release(me);
  }
  const int buffer = me->tiles++ & 1;
  float *mine = partial_sums(buffer, me->warp);
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float sum = sums[r][i];
      for (int mask = 4; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
      if (me->lane < 4) mine[r * 16 + me->lane * 4 + i] = sum;
    }
  compute_sync();
  for (int i = me->thread; i < rows * 16; i += COMPUTE_THREADS) {
    const int feature = tile * 16 + i % 16;
    if (feature >= out) continue;
    float sum = partial_sums(buffer, 0)[i];
    for (int warp = 1; warp < COMPUTE_WARPS; ++warp) sum += partial_sums(buffer, warp)[i];
    y[(size_t)(i / 16) * (size_t)out + (size_t)feature] = bias ? sum + bias[feature] : sum;
  }
}

template <enum weight_format FORMAT>
DEVICE_CALL void linear(struct worker *me, float *y, const float *x, const float *bias, int rows, int in, int out,
                        struct range tiles) {
  for (int row = 0; row < rows; row += ROWS_AT_ONCE) {
    const int count = rows - row < ROWS_AT_ONCE ? rows - row : ROWS_AT_ONCE;
    float *y_rows = y + (size_t)row * (size_t)out;
    const float *x_rows = x + (size_t)row * (size_t)in;
    for (int tile = tiles.begin; tile < tiles.end; ++tile) {
      if (count == 1) linear_tile<FORMAT, 1>(me, y_rows, x_rows, bias, count, in, out, tile);
      else if (count == 2) linear_tile<FORMAT, 2>(me, y_rows, x_rows, bias, count, in, out, tile);
      else if (count <= 4) linear_tile<FORMAT, 4>(me, y_rows, x_rows, bias, count, in, out, tile);
      else linear_tile<FORMAT, 8>(me, y_rows, x_rows, bias, count, in, out, tile);
    }
  }
  if (me->thread == 0 && tiles.begin < tiles.end)
    me->bytes_read += (uint64_t)((rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE) * (uint64_t)(tiles.end - tiles.begin) *
                      (uint64_t)tile_bytes<FORMAT>(in);
}

#define f32_linear linear<WEIGHT_F32>
#define bf16_linear linear<WEIGHT_BF16>

/* y[rows, width] = table[tokens] * scale, features `part`; the table is stored in tiles. */
template <enum weight_format FORMAT>
DEVICE void embed(struct worker *me, float *y, const int32_t *tokens, const uint8_t *table, int rows, int width, float scale,
                  struct range part) {
  const int count = part.end - part.begin;
  for (int i = me->thread; i < rows * count; i += COMPUTE_THREADS) {
    const int row = i / count, feature = part.begin + i % count, token = tokens[row];
    const uint8_t *tile = table + (size_t)(token / 16) * (size_t)tile_bytes<FORMAT>(width);
    float value;
    if (FORMAT == WEIGHT_F32) {
      value = ((const float *)tile)[feature * 16 + token % 16];
    } else {
      const uint32_t bits = ((const uint16_t *)tile)[(feature / 2 * 16 + token % 16) * 2 + feature % 2];
      value = bits_to_float(bits << 16);
    }
    y[(size_t)row * (size_t)width + (size_t)feature] = value * scale;
  }
  if (me->thread == 0) me->bytes_read += (uint64_t)(rows * count) * (FORMAT == WEIGHT_F32 ? 4 : 2);
}

#define f32_embed embed<WEIGHT_F32>
#define bf16_embed embed<WEIGHT_BF16>
