/* Operators that treat features alike: add, gates, soft cap; and norms and RoPE, which treat groups of them alike. */
#pragma once
#include <math.h>
#include "engine.h"
#include "vector_math.h"

static inline v16 add_two(v16 a, v16 b, float unused) {
  (void)unused;
  return v16_add(a, b);
}
static inline v16 silu_mul(v16 gate, v16 up, float unused) {
  (void)unused;
  return v16_mul(v16_silu(gate), up);
}
static inline v16 gelu_mul(v16 gate, v16 up, float unused) {
  (void)unused;
  return v16_mul(v16_gelu(gate), up);
}
static inline v16 soft_cap(v16 x, v16 unused, float cap) {
  (void)unused;
  return v16_mul(v16_set(cap), v16_tanh(v16_mul(x, v16_set(1.0f / cap))));
}

/* y = f(a, b) on features `part` of every row. The remainder is computed as the whole vectors are. */
#define DEFINE_ELEMENTWISE(name, f)                                                                                      \
  static __attribute__((noinline, unused)) void name(float *y, const float *a, const float *b, int rows, int width,      \
                                                     float parameter, struct range part) {                               \
    for (int row = 0; row < rows; ++row) {                                                                               \
      const size_t start = (size_t)row * (size_t)width;                                                                  \
      int i = part.begin;                                                                                                \
      for (; i + 16 <= part.end; i += 16)                                                                                \
        v16_store(y + start + i, f(v16_load(a + start + i), v16_load(b + start + i), parameter));                        \
      if (i < part.end) {                                                                                                \
        const int n = part.end - i;                                                                                      \
        v16_store_part(y + start + i, f(v16_load_part(a + start + i, n), v16_load_part(b + start + i, n), parameter), n); \
      }                                                                                                                  \
    }                                                                                                                    \
  }

DEFINE_ELEMENTWISE(f32_add, add_two)
DEFINE_ELEMENTWISE(f32_silu_mul, silu_mul)
DEFINE_ELEMENTWISE(f32_gelu_mul, gelu_mul)
DEFINE_ELEMENTWISE(f32_softcap, soft_cap)

/* RMSNorm of groups of `n` features: y = x / sqrt(mean(x^2) + eps) * (weight + offset), groups `part` of every row. */
static __attribute__((noinline, unused)) void f32_rms_norm(float *y, const float *x, const float *weight, int rows,
                                                           int width, int n, float eps, float offset, struct range part) {
  for (int row = 0; row < rows; ++row) {
    for (int group = part.begin; group < part.end; ++group) {
      const size_t start = (size_t)row * (size_t)width + (size_t)group * (size_t)n;
      v16 squares = v16_zero();
      for (int i = 0; i < n; i += 16) {
        const v16 v = n - i >= 16 ? v16_load(x + start + i) : v16_load_part(x + start + i, n - i);
        squares = v16_fma(v, v, squares);
      }
      const v16 scale = v16_set(1.0f / sqrtf(v16_sum(squares) / (float)n + eps));
      for (int i = 0; i < n; i += 16) {
        const int count = n - i < 16 ? n - i : 16;
        const v16 v = v16_load_part(x + start + i, count);
        const v16 w = v16_add(v16_load_part(weight + i, count), v16_set(offset));
        v16_store_part(y + start + i, v16_mul(v16_mul(v, scale), w), count);
      }
    }
  }
}

/* table[rows, 2n]: cosines, then sines, of position * frequency. */
static __attribute__((noinline, unused)) void f32_rope_table(float *table, const int32_t *positions,
                                                             const float *frequencies, int rows, int n) {
  for (int row = 0; row < rows; ++row) {
    for (int i = 0; i < n; ++i) {
      const double angle = (double)positions[row] * (double)frequencies[i];
      table[(size_t)row * (size_t)(2 * n) + (size_t)i] = (float)cos(angle);
      table[(size_t)row * (size_t)(2 * n) + (size_t)(n + i)] = (float)sin(angle);
    }
  }
}

/* Rotates the pairs (i, i + n) of heads `heads`, each 2n wide. */
static __attribute__((noinline, unused)) void f32_rope_halves(float *y, const float *x, const float *table, int rows,
                                                              int width, int n, struct range heads) {
  for (int row = 0; row < rows; ++row) {
    const float *cosine = table + (size_t)row * (size_t)(2 * n);
    const float *sine = cosine + n;
    for (int head = heads.begin; head < heads.end; ++head) {
      const size_t low = (size_t)row * (size_t)width + (size_t)head * (size_t)(2 * n);
      const size_t high = low + (size_t)n;
      for (int i = 0; i < n; i += 16) {
        const int count = n - i < 16 ? n - i : 16;
        const v16 a = v16_load_part(x + low + i, count), b = v16_load_part(x + high + i, count);
        const v16 c = v16_load_part(cosine + i, count), s = v16_load_part(sine + i, count);
        v16_store_part(y + low + i, v16_sub(v16_mul(a, c), v16_mul(b, s)), count);
        v16_store_part(y + high + i, v16_fma(b, c, v16_mul(a, s)), count);
      }
    }
  }
}

/* Rotates the pairs (2i, 2i + 1). */
static __attribute__((noinline, unused)) void f32_rope_adjacent(float *y, const float *x, const float *table, int rows,
                                                                int width, int n, struct range heads) {
  for (int row = 0; row < rows; ++row) {
    const float *cosine = table + (size_t)row * (size_t)(2 * n);
    const float *sine = cosine + n;
    for (int head = heads.begin; head < heads.end; ++head) {
      const size_t start = (size_t)row * (size_t)width + (size_t)head * (size_t)(2 * n);
      for (int i = 0; i < n; ++i) {
        const float a = x[start + 2 * i], b = x[start + 2 * i + 1];
        y[start + 2 * i] = a * cosine[i] - b * sine[i];
        y[start + 2 * i + 1] = b * cosine[i] + a * sine[i];
      }
    }
  }
}

/* y[samples, width] = rows index[s] of x. */
static __attribute__((noinline, unused)) void f32_gather_rows(float *y, const float *x, const int32_t *index, int samples,
                                                              int width) {
  for (int s = 0; s < samples; ++s)
    memcpy(y + (size_t)s * (size_t)width, x + (size_t)index[s] * (size_t)width, (size_t)width * sizeof *y);
}
