/*
 * linear: y[rows, out] = x[rows, in] . weight[out, in] (+ bias[out]), weights in the tiles of 16 outputs of the packed file.
 * What a tile is made of is the format's (float_tiles.cuh, block_tiles.cuh). A lane's 16 bytes are weights of four outputs in
 * all of them, so that a warp reads 512 bytes in one piece, and a number of x serves four outputs. A tile is one run of
 * memory, which is what bulk copies like.
 *
 * All compute warps share a tile and put their sums together in a fixed order, whatever the number of rows or blocks: a
 * token's value does not depend on its neighbours.
 *
 * Sixteen rows and more are computed by tensor cores, up to WIDE_ROWS at once, while weights pass by; the order of sums is
 * another one then, again the same for every number of rows. WIDE_ROWS is 0 where no step has as many rows.
 *
 * A format has: `input`, what its kernels read for x; `row_of(x, row, in)`; `tile_bytes(in)`; `slice_bytes`, the most that is
 * fetched at once and used as a whole; `add_slice<ROWS>`, which adds a slice's part to a lane's sums; `by_tensor_cores` and
 * `add_slice_wide<GROUPS>`, the same for groups of eight rows; `element(tile, lane, feature, width)`, one weight.
 */
#pragma once
#include "float_tiles.cuh"
#include "block_tiles.cuh"

/* Rows that are computed together, of `rows`. */
template <class FORMAT>
DEVICE int rows_together(int rows) {
  return FORMAT::by_tensor_cores && are_many(rows) ? WIDE_ROWS : ROWS_AT_ONCE;
}

/* Tiles `tiles` of a matrix for the other warps, once for every group of rows that is computed together. */
template <class FORMAT>
DEVICE bool stream(struct worker *me, const uint8_t *weight, int rows, int in, struct range tiles) {
  for (int row = 0; row < rows; row += rows_together<FORMAT>(rows))
    if (!stream_tiles(me, weight, FORMAT::tile_bytes(in), FORMAT::slice_bytes, tiles)) return false;
  return true;
}

/* Partial sums of a warp for one tile are put here, twice, so that one barrier per tile is enough. */
DEVICE float *partial_sums(int buffer, int warp) {
  return (float *)work_space() + (buffer * COMPUTE_WARPS + warp) * ROWS_AT_ONCE * 16;
}

template <class FORMAT, int ROWS>
DEVICE void linear_tile(struct worker *me, float *y, typename FORMAT::input x, const float *bias, int rows, int in, int out,
                        int tile) {
  float sums[ROWS][4];
#pragma unroll
  for (int r = 0; r < ROWS; ++r)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[r][i] = 0.0f;
  const int bytes = FORMAT::tile_bytes(in);
  for (int at = 0; at < bytes; at += FORMAT::slice_bytes) {
    const int size = bytes - at < FORMAT::slice_bytes ? bytes - at : FORMAT::slice_bytes;
    const uint8_t *slice = ring_take(me);
    FORMAT::template add_slice<ROWS>(sums, me, slice, size, x, rows, in, at);
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

/* Up to 8 * GROUPS rows. */
template <class FORMAT, int GROUPS>
DEVICE void linear_tile_wide(struct worker *me, float *y, typename FORMAT::input x, const float *bias, int rows, int in,
                             int out, int tile) {
  float sums[GROUPS][4];
#pragma unroll
  for (int n = 0; n < GROUPS; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
  const int bytes = FORMAT::tile_bytes(in);
  for (int at = 0; at < bytes; at += FORMAT::slice_bytes) {
    const int size = bytes - at < FORMAT::slice_bytes ? bytes - at : FORMAT::slice_bytes;
    const uint8_t *slice = ring_take(me);
    FORMAT::template add_slice_wide<GROUPS>(sums, me, slice, size, x, rows, in, at);
    ring_release(me);
  }
  /* Sixteen rows at a time, in the room of both buffers. */
  float *all = partial_sums(0, 0), *mine = all + me->warp * 256;
  const int output = me->lane / 4 * 2, column = me->lane % 4 * 2;
#pragma unroll
  for (int first = 0; first < GROUPS; first += 2) {
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) mine[(n * 8 + column + i % 2) * 16 + output + i / 2] = sums[first + n][i];
    compute_sync();
    for (int i = me->thread; i < 256; i += COMPUTE_THREADS) {
      const int row = first * 8 + i / 16, feature = tile * 16 + i % 16;
      if (row >= rows || feature >= out) continue;
      float sum = all[i];
      for (int warp = 1; warp < COMPUTE_WARPS; ++warp) sum += all[warp * 256 + i];
      y[(size_t)row * (size_t)out + (size_t)feature] = bias ? sum + bias[feature] : sum;
    }
    compute_sync();
  }
}

/* `rows` of them together, once for every tile. */
template <class FORMAT>
DEVICE void linear_rows(struct worker *me, float *y, typename FORMAT::input x, const float *bias, int rows, int in, int out,
                        struct range tiles) {
  for (int tile = tiles.begin; tile < tiles.end; ++tile) {
    if (rows == 1) linear_tile<FORMAT, 1>(me, y, x, bias, rows, in, out, tile);
    else if (rows == 2) linear_tile<FORMAT, 2>(me, y, x, bias, rows, in, out, tile);
    else if (rows <= 4) linear_tile<FORMAT, 4>(me, y, x, bias, rows, in, out, tile);
    else linear_tile<FORMAT, 8>(me, y, x, bias, rows, in, out, tile);
  }
}
template <class FORMAT>
DEVICE void linear_rows_wide(struct worker *me, float *y, typename FORMAT::input x, const float *bias, int rows, int in,
                             int out, struct range tiles) {
  /* Others may still read partial sums of the matrix before. */
  compute_sync();
  for (int tile = tiles.begin; tile < tiles.end; ++tile) {
    if (rows <= 16) linear_tile_wide<FORMAT, 2>(me, y, x, bias, rows, in, out, tile);
    else if (rows <= 32) linear_tile_wide<FORMAT, 4>(me, y, x, bias, rows, in, out, tile);
    else linear_tile_wide<FORMAT, 8>(me, y, x, bias, rows, in, out, tile);
  }
}

template <class FORMAT>
DEVICE_CALL void linear(struct worker *me, float *y, typename FORMAT::input x, const float *bias, int rows, int in, int out,
                        struct range tiles) {
  const int together = rows_together<FORMAT>(rows);
  for (int row = 0; row < rows; row += together) {
    const int count = rows - row < together ? rows - row : together;
    float *y_rows = y + (size_t)row * (size_t)out;
    const typename FORMAT::input x_rows = FORMAT::row_of(x, row, in);
    if constexpr (WIDE_ROWS > 0 && FORMAT::by_tensor_cores) {
      if (together == WIDE_ROWS) {
        linear_rows_wide<FORMAT>(me, y_rows, x_rows, bias, count, in, out, tiles);
        continue;
      }
    }
    linear_rows<FORMAT>(me, y_rows, x_rows, bias, count, in, out, tiles);
  }
  if (me->thread == 0 && tiles.begin < tiles.end)
    me->bytes_read += (uint64_t)((rows + together - 1) / together) * (uint64_t)(tiles.end - tiles.begin) *
                      (uint64_t)FORMAT::tile_bytes(in);
}

/* y[rows, width] = table[tokens] * scale, features `part`; the table is stored in tiles. */
template <class FORMAT>
DEVICE void embed(struct worker *me, float *y, const int32_t *tokens, const uint8_t *table, int rows, int width, float scale,
                  struct range part) {
  const int count = part.end - part.begin;
  const size_t bytes = (size_t)FORMAT::tile_bytes(width);
  for (int i = me->thread; i < rows * count; i += COMPUTE_THREADS) {
    const int row = i / count, feature = part.begin + i % count, token = tokens[row];
    const float value = FORMAT::element(table + (size_t)(token / 16) * bytes, token % 16, feature, width);
    y[(size_t)row * (size_t)width + (size_t)feature] = value * scale;
  }
  if (me->thread == 0) me->bytes_read += (uint64_t)rows * (uint64_t)count * bytes / (16 * (uint64_t)width);
}

#define f32_stream stream<f32_tiles>
#define bf16_stream stream<bf16_tiles>
#define q8_0_stream stream<q8_0_tiles>
#define q4_0_stream stream<q4_0_tiles>
#define f32_linear linear<f32_tiles>
#define bf16_linear linear<bf16_tiles>
#define q8_0_linear linear<q8_0_tiles>
#define q4_0_linear linear<q4_0_tiles>
#define f32_embed embed<f32_tiles>
#define bf16_embed embed<bf16_tiles>
#define q8_0_embed embed<q8_0_tiles>
#define q4_0_embed embed<q4_0_tiles>
