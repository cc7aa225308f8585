/*
 * KV cache and attention. Caches are [slots, kv_heads, context, head_dim]; a row reads the positions of its slot up to its
 * own. Work is divided by key/value head, so that a worker reads only what it has written. Idle rows have position -1.
 */
#pragma once
#include <math.h>
#include "engine.h"
#include "vector_math.h"

/* Query heads that are computed together where they share keys and values. */
#define GROUP 4

struct attention_shape {
  int heads, kv_heads, head_dim, context;
  float scale, softcap;
  int window;
  /* Offset in the worker's own memory of GROUP x `context` floats for scores. */
  uint64_t scores;
};

/* Round to nearest, ties to even. */
static inline uint16_t to_bf16(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline void f32_store_state(float *to, const float *from, int count) { memcpy(to, from, (size_t)count * sizeof *to); }
static inline void bf16_store_state(uint16_t *to, const float *from, int count) {
  for (int i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
}
static inline v16 f32_load_state(const float *p, int count) { return count >= 16 ? v16_load(p) : v16_load_part(p, count); }
static inline v16 bf16_load_state(const uint16_t *p, int count) {
  if (count >= 16) return v16_load_bf16(p);
  uint16_t whole[16] = {0};
  memcpy(whole, p, (size_t)count * sizeof *p);
  return v16_load_bf16(whole);
}

/* Turns scores into weights exp(s - largest), and returns 1 / their sum. */
static inline float softmax_scale(float *scores, int count) {
  v16 top = v16_set(scores[0]);
  int i = 0;
  for (; i + 16 <= count; i += 16) top = v16_max(top, v16_load(scores + i));
  float largest = v16_largest(top);
  for (; i < count; ++i) largest = scores[i] > largest ? scores[i] : largest;
  const v16 shift = v16_set(largest);
  v16 sums = v16_zero();
  for (i = 0; i + 16 <= count; i += 16) {
    const v16 weights = v16_exp(v16_sub(v16_load(scores + i), shift));
    v16_store(scores + i, weights);
    sums = v16_add(sums, weights);
  }
  float sum = v16_sum(sums);
  if (i < count) {
    v16_store_part(scores + i, v16_exp(v16_sub(v16_load_part(scores + i, count - i), shift)), count - i);
    for (; i < count; ++i) sum += scores[i];
  }
  return 1.0f / sum;
}

static inline void cap_scores(float *scores, int count, float cap) {
  for (int i = 0; i < count; i += 16) {
    const int n = count - i < 16 ? count - i : 16;
    const v16 s = v16_mul(v16_load_part(scores + i, n), v16_set(1.0f / cap));
    v16_store_part(scores + i, v16_mul(v16_tanh(s), v16_set(cap)), n);
  }
}

#define DEFINE_ATTENTION(dtype, element)                                                                                  \
  static __attribute__((noinline, unused)) void dtype##_append_kv(                                                        \
      element *keys, element *values, const float *k, const float *v, const int32_t *slots, const int32_t *positions,     \
      int rows, int kv_heads, int head_dim, int context, struct range heads) {                                            \
    for (int row = 0; row < rows; ++row) {                                                                                \
      if (positions[row] < 0) continue;                                                                                   \
      for (int head = heads.begin; head < heads.end; ++head) {                                                            \
        const size_t from = ((size_t)row * (size_t)kv_heads + (size_t)head) * (size_t)head_dim;                           \
        const size_t to = (((size_t)slots[row] * (size_t)kv_heads + (size_t)head) * (size_t)context +                     \
                           (size_t)positions[row]) * (size_t)head_dim;                                                    \
        dtype##_store_state(keys + to, k + from, head_dim);                                                               \
        dtype##_store_state(values + to, v + from, head_dim);                                                             \
      }                                                                                                                   \
    }                                                                                                                     \
  }                                                                                                                       \
                                                                                                                          \
  /* scores[h][p] for `heads` query heads (a constant) that share keys: a key is loaded once for all of them. */          \
  static inline __attribute__((always_inline)) void dtype##_scores(int heads, float *scores, int stride, const float *q,  \
                                                                   const element *keys, int count, int head_dim,          \
                                                                   float scale) {                                         \
    for (int p = 0; p < count; p += 16) {                                                                                 \
      const int n = count - p < 16 ? count - p : 16;                                                                      \
      v16 sums[GROUP][16];                                                                                                \
      for (int j = 0; j < 16; ++j)                                                                                        \
        for (int h = 0; h < heads; ++h) sums[h][j] = v16_zero();                                                          \
      for (int j = 0; j < n; ++j) {                                                                                       \
        const element *key = keys + (size_t)(p + j) * (size_t)head_dim;                                                   \
        v16 sum[GROUP];                                                                                                   \
        for (int h = 0; h < heads; ++h) sum[h] = v16_zero();                                                              \
        for (int i = 0; i < head_dim; i += 16) {                                                                          \
          const int width = head_dim - i;                                                                                 \
          const v16 k = dtype##_load_state(key + i, width);                                                               \
          for (int h = 0; h < heads; ++h) sum[h] = v16_fma(f32_load_state(q + h * head_dim + i, width), k, sum[h]);       \
        }                                                                                                                 \
        for (int h = 0; h < heads; ++h) sums[h][j] = sum[h];                                                              \
      }                                                                                                                   \
      for (int h = 0; h < heads; ++h)                                                                                     \
        v16_store_part(scores + (size_t)h * (size_t)stride + p, v16_mul(v16_sum16(sums[h]), v16_set(scale)), n);          \
    }                                                                                                                     \
  }                                                                                                                       \
                                                                                                                          \
  /* y[h] = sum over p of weights[h][p] * values[p] * scale[h], even and odd positions apart. */                          \
  static inline __attribute__((always_inline)) void dtype##_weigh_values(int heads, float *y, const float *weights,       \
                                                                         int stride, const element *values, int count,    \
                                                                         int head_dim, const float *scale) {              \
    for (int i = 0; i < head_dim; i += 16) {                                                                              \
      const int n = head_dim - i < 16 ? head_dim - i : 16;                                                                \
      v16 even[GROUP], odd[GROUP];                                                                                        \
      for (int h = 0; h < heads; ++h) even[h] = odd[h] = v16_zero();                                                      \
      const element *value = values + i;                                                                                  \
      int p = 0;                                                                                                          \
      for (; p + 2 <= count; p += 2, value += 2 * (size_t)head_dim) {                                                     \
        const v16 first = dtype##_load_state(value, n), second = dtype##_load_state(value + head_dim, n);                 \
        for (int h = 0; h < heads; ++h) {                                                                                 \
          even[h] = v16_fma(v16_set(weights[(size_t)h * (size_t)stride + (size_t)p]), first, even[h]);                    \
          odd[h] = v16_fma(v16_set(weights[(size_t)h * (size_t)stride + (size_t)p + 1]), second, odd[h]);                 \
        }                                                                                                                 \
      }                                                                                                                   \
      if (p < count) {                                                                                                    \
        const v16 last = dtype##_load_state(value, n);                                                                    \
        for (int h = 0; h < heads; ++h)                                                                                   \
          even[h] = v16_fma(v16_set(weights[(size_t)h * (size_t)stride + (size_t)p]), last, even[h]);                     \
      }                                                                                                                   \
      for (int h = 0; h < heads; ++h)                                                                                     \
        v16_store_part(y + h * head_dim + i, v16_mul(v16_add(even[h], odd[h]), v16_set(scale[h])), n);                    \
    }                                                                                                                     \
  }                                                                                                                       \
                                                                                                                          \
  static inline __attribute__((always_inline)) void dtype##_attend(int heads, float *y, const float *q,                   \
                                                                   const element *keys, const element *values, int count, \
                                                                   const struct attention_shape *a, float *scores) {      \
    float scale[GROUP];                                                                                                   \
    dtype##_scores(heads, scores, a->context, q, keys, count, a->head_dim, a->scale);                                     \
    for (int h = 0; h < heads; ++h) {                                                                                     \
      float *row = scores + (size_t)h * (size_t)a->context;                                                               \
      if (a->softcap > 0.0f) cap_scores(row, count, a->softcap);                                                          \
      scale[h] = softmax_scale(row, count);                                                                               \
    }                                                                                                                     \
    dtype##_weigh_values(heads, y, scores, a->context, values, count, a->head_dim, scale);                                \
  }                                                                                                                       \
                                                                                                                          \
  static __attribute__((noinline, unused)) void dtype##_attention(                                                        \
      struct worker *me, float *y, const float *q, const element *keys, const element *values, const int32_t *slots,      \
      const int32_t *positions, int rows, struct attention_shape a, struct range heads) {                                 \
    float *scores = own(me, a.scores);                                                                                    \
    const int group = a.heads / a.kv_heads;                                                                               \
    for (int kv_head = heads.begin; kv_head < heads.end; ++kv_head) {                                                     \
      for (int row = 0; row < rows; ++row) {                                                                              \
        const int position = positions[row];                                                                              \
        float *out = y + ((size_t)row * (size_t)a.heads + (size_t)(kv_head * group)) * (size_t)a.head_dim;                \
        if (position < 0) {                                                                                               \
          memset(out, 0, (size_t)(group * a.head_dim) * sizeof *out);                                                     \
          continue;                                                                                                       \
        }                                                                                                                 \
        const int first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;                             \
        const int count = position - first + 1;                                                                           \
        const size_t start = (((size_t)slots[row] * (size_t)a.kv_heads + (size_t)kv_head) * (size_t)a.context +           \
                              (size_t)first) * (size_t)a.head_dim;                                                        \
        const float *queries = q + (out - y);                                                                             \
        int g = 0;                                                                                                        \
        for (; g + GROUP <= group; g += GROUP)                                                                            \
          dtype##_attend(GROUP, out + g * a.head_dim, queries + g * a.head_dim, keys + start, values + start, count, &a,  \
                         scores);                                                                                         \
        for (; g + 2 <= group; g += 2)                                                                                    \
          dtype##_attend(2, out + g * a.head_dim, queries + g * a.head_dim, keys + start, values + start, count, &a,      \
                         scores);                                                                                         \
        for (; g < group; ++g)                                                                                            \
          dtype##_attend(1, out + g * a.head_dim, queries + g * a.head_dim, keys + start, values + start, count, &a,      \
                         scores);                                                                                         \
        me->bytes_read += 2 * (uint64_t)count * (uint64_t)a.head_dim * sizeof *keys;                                      \
      }                                                                                                                   \
    }                                                                                                                     \
  }

DEFINE_ATTENTION(f32, float)
DEFINE_ATTENTION(bf16, uint16_t)
