/*
 * KV cache and attention. Caches are [slots, kv_heads, context, head_dim]; a row reads the positions of its slot up to its
 * own. Work is divided by key/value head, so that a worker reads only what it has written. Idle rows have position -1.
 */
#pragma once
#include <math.h>
#include "engine.h"
#include "vector_math.h"

struct attention_shape {
  int heads, kv_heads, head_dim, context;
  float scale, softcap;
  int window;
  /* Offset in the worker's own memory of `context` floats for scores. */
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

#define DEFINE_ATTENTION(dtype, element)                                                                                 \
  static __attribute__((noinline, unused)) void dtype##_append_kv(                                                       \
      element *keys, element *values, const float *k, const float *v, const int32_t *slots, const int32_t *positions,    \
      int rows, int kv_heads, int head_dim, int context, struct range heads) {                                           \
    for (int row = 0; row < rows; ++row) {                                                                               \
      if (positions[row] < 0) continue;                                                                                  \
      for (int head = heads.begin; head < heads.end; ++head) {                                                           \
        const size_t from = ((size_t)row * (size_t)kv_heads + (size_t)head) * (size_t)head_dim;                          \
        const size_t to = (((size_t)slots[row] * (size_t)kv_heads + (size_t)head) * (size_t)context +                    \
                           (size_t)positions[row]) * (size_t)head_dim;                                                   \
        dtype##_store_state(keys + to, k + from, head_dim);                                                              \
        dtype##_store_state(values + to, v + from, head_dim);                                                            \
      }                                                                                                                  \
    }                                                                                                                    \
  }                                                                                                                      \
                                                                                                                         \
  static inline void dtype##_scores(float *scores, const float *q, const element *keys, int count, int head_dim,         \
                                    float scale) {                                                                       \
    for (int p = 0; p < count; ++p) {                                                                                    \
      const element *key = keys + (size_t)p * (size_t)head_dim;                                                          \
      v16 sum = v16_zero();                                                                                              \
      for (int i = 0; i < head_dim; i += 16) {                                                                           \
        const int n = head_dim - i;                                                                                      \
        sum = v16_fma(n >= 16 ? v16_load(q + i) : v16_load_part(q + i, n), dtype##_load_state(key + i, n), sum);         \
      }                                                                                                                  \
      scores[p] = v16_sum(sum) * scale;                                                                                  \
    }                                                                                                                    \
  }                                                                                                                      \
                                                                                                                         \
  static inline void dtype##_weigh_values(float *y, const float *weights, const element *values, int count,              \
                                          int head_dim, float scale) {                                                   \
    for (int i = 0; i < head_dim; i += 16) {                                                                             \
      const int n = head_dim - i < 16 ? head_dim - i : 16;                                                               \
      v16 even = v16_zero(), odd = v16_zero();                                                                           \
      const element *value = values + i;                                                                                 \
      int p = 0;                                                                                                         \
      for (; p + 2 <= count; p += 2, value += 2 * (size_t)head_dim) {                                                    \
        even = v16_fma(v16_set(weights[p]), dtype##_load_state(value, n), even);                                         \
        odd = v16_fma(v16_set(weights[p + 1]), dtype##_load_state(value + head_dim, n), odd);                            \
      }                                                                                                                  \
      if (p < count) even = v16_fma(v16_set(weights[p]), dtype##_load_state(value, n), even);                            \
      v16_store_part(y + i, v16_mul(v16_add(even, odd), v16_set(scale)), n);                                             \
    }                                                                                                                    \
  }                                                                                                                      \
                                                                                                                         \
  static __attribute__((noinline, unused)) void dtype##_attention(                                                       \
      struct worker *me, float *y, const float *q, const element *keys, const element *values, const int32_t *slots,     \
      const int32_t *positions, int rows, struct attention_shape a, struct range heads) {                                \
    float *scores = own(me, a.scores);                                                                                   \
    const int group = a.heads / a.kv_heads;                                                                              \
    for (int kv_head = heads.begin; kv_head < heads.end; ++kv_head) {                                                    \
      for (int row = 0; row < rows; ++row) {                                                                             \
        const int position = positions[row];                                                                             \
        float *out = y + ((size_t)row * (size_t)a.heads + (size_t)(kv_head * group)) * (size_t)a.head_dim;               \
        if (position < 0) {                                                                                              \
          memset(out, 0, (size_t)(group * a.head_dim) * sizeof *out);                                                    \
          continue;                                                                                                      \
        }                                                                                                                \
        const int first = a.window > 0 && position >= a.window ? position - a.window + 1 : 0;                            \
        const int count = position - first + 1;                                                                          \
        const size_t start = (((size_t)slots[row] * (size_t)a.kv_heads + (size_t)kv_head) * (size_t)a.context +          \
                              (size_t)first) * (size_t)a.head_dim;                                                       \
        for (int g = 0; g < group; ++g) {                                                                                \
          const size_t head = ((size_t)row * (size_t)a.heads + (size_t)(kv_head * group + g)) * (size_t)a.head_dim;      \
          dtype##_scores(scores, q + head, keys + start, count, a.head_dim, a.scale);                                    \
          if (a.softcap > 0.0f) cap_scores(scores, count, a.softcap);                                                    \
          const float scale = softmax_scale(scores, count);                                                              \
          dtype##_weigh_values(y + head, scores, values + start, count, a.head_dim, scale);                              \
        }                                                                                                                \
        me->bytes_read += 2 * (uint64_t)count * (uint64_t)a.head_dim * sizeof *keys;                                     \
      }                                                                                                                  \
    }                                                                                                                    \
  }

DEFINE_ATTENTION(f32, float)
DEFINE_ATTENTION(bf16, uint16_t)
