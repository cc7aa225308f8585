/*
 * Tiles of floats, 64 bytes for a group of columns:
 *   f32: [in][16]          bf16: [in / 2][16][2]
 * Products and sums are those of float32.
 */
#pragma once
#include "ring.cuh"

/* @param COLUMNS that share 64 bytes: 1 of f32, 2 of bf16 */
template <int COLUMNS>
struct float_tiles {
  typedef const float *input;
  static constexpr int slice_bytes = SLICE_BYTES / 64 * 64;

  DEVICE_MEMBER int tile_bytes(int in) { return (in + 1) / 2 * 2 / COLUMNS * 64; }
  DEVICE_MEMBER const float *row_of(const float *x, int row, int in) { return x + (size_t)row * (size_t)in; }

  /* 16 bytes of a tile: weights of four outputs at one or two columns. */
  DEVICE_MEMBER void unpack(const uint8_t *from, float first[4], float second[4]) {
    const vec16 v = *(const vec16 *)from;
    for (int i = 0; i < 4; ++i) {
      if (COLUMNS == 1) {
        first[i] = bits_to_float(v.word[i]);
        second[i] = 0.0f;
      } else {
        first[i] = bits_to_float(v.word[i] << 16);
        second[i] = bits_to_float(v.word[i] & 0xffff0000u);
      }
    }
  }

  /* @param at bytes of the tile before this slice */
  template <int ROWS>
  DEVICE_MEMBER void add_slice(float sums[ROWS][4], const struct worker *me, const uint8_t *slice, int bytes, const float *x,
                               int rows, int in, int at) {
    const int first_column = at / 64 * COLUMNS;
#pragma unroll 4
    for (int piece = me->thread; piece < bytes / 16; piece += COMPUTE_THREADS) {
      const int column = first_column + piece / 4 * COLUMNS;
      float first[4], second[4];
      unpack(slice + piece * 16, first, second);
#pragma unroll
      for (int r = 0; r < ROWS; ++r) {
        /* Rows that are not there are computed as the last one, and not used. */
        const float *row = x + (size_t)(r < rows ? r : rows - 1) * (size_t)in;
        const float x0 = column < in ? row[column] : 0.0f;
        const float x1 = COLUMNS == 2 && column + 1 < in ? row[column + 1] : 0.0f;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          sums[r][i] = fmaf(first[i], x0, sums[r][i]);
          if (COLUMNS == 2) sums[r][i] = fmaf(second[i], x1, sums[r][i]);
        }
      }
    }
  }

  /* Only matrices of bf16: sums in float32, of x = high + low in two numbers of bf16, which keep 16 bits of it. */
  static constexpr bool by_tensor_cores = COLUMNS == 2;

  /* Two neighbours of a row; what is behind its end is 0. */
  DEVICE_MEMBER void two_of(const float *row, int column, int in, uint32_t *high, uint32_t *low) {
    float x0, x1;
    if (in % 2 == 0 && column < in) {
      const vec8 both = *(const vec8 *)(row + column);
      x0 = bits_to_float(both.word[0]);
      x1 = bits_to_float(both.word[1]);
    } else {
      x0 = column < in ? row[column] : 0.0f;
      x1 = column + 1 < in ? row[column + 1] : 0.0f;
    }
    *high = two_bf16(x0, x1);
    *low = two_bf16(x0 - bits_to_float(*high << 16), x1 - bits_to_float(*high & 0xffff0000u));
  }

  /*
   * The same for GROUPS groups of eight rows. Outputs 2g and 2g + 1 are rows g and g + 8 of the tensor cores, so that a lane
   * loads both at once.
   */
  template <int GROUPS>
  DEVICE_MEMBER void add_slice_wide(float sums[GROUPS][4], const struct worker *me, const uint8_t *slice, int bytes,
                                    const float *x, int rows, int in, int at) {
    const int g = me->lane / 4, t = me->lane % 4, pairs = bytes / 64;
    for (int first = me->warp * 8; first < pairs; first += COMPUTE_WARPS * 8) {
      uint32_t a[4];
      for (int half = 0; half < 2; ++half) {
        const int pair = first + t + 4 * half;
        const vec8 two = pair < pairs ? *(const vec8 *)(slice + pair * 64 + g * 8) : vec8{{0, 0}};
        a[2 * half] = two.word[0];
        a[2 * half + 1] = two.word[1];
      }
      const int column = at / 32 + 2 * (first + t);
#pragma unroll
      for (int n = 0; n < GROUPS; ++n) {
        const float *row = x + (size_t)(n * 8 + g < rows ? n * 8 + g : rows - 1) * (size_t)in;
        uint32_t high[2], low[2];
        two_of(row, column, in, &high[0], &low[0]);
        two_of(row, column + 8, in, &high[1], &low[1]);
        mma_bf16(sums[n], a, low);
        mma_bf16(sums[n], a, high);
      }
    }
  }

  DEVICE_MEMBER float element(const uint8_t *tile, int lane, int feature, int) {
    if (COLUMNS == 1) return ((const float *)tile)[feature * 16 + lane];
    const uint32_t bits = ((const uint16_t *)tile)[(feature / 2 * 16 + lane) * 2 + feature % 2];
    return bits_to_float(bits << 16);
  }
};

typedef float_tiles<1> f32_tiles;
typedef float_tiles<2> bf16_tiles;
