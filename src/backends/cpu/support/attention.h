/*
 * KV cache and attention. Caches are [slots, kv_heads, context, head_dim]; a row reads the positions of its slot up to its
 * own. Idle rows have position -1.
 *
 * The context is cut into blocks of a fixed number of positions. Every row attends to one block after the other, and the
 * results of blocks are merged in their order (Milakov and Gimelshein, arXiv 1805.02867). So the order of sums depends on
 * the row's position alone, and not on who computes a block. Work is divided by key/value head, and where there are too few of
 * them by block as well: a unit appends to and reads its own blocks only, so that it needs nothing of what other units of
 * the stage write. Results of blocks then wait in shared memory until the last unit of their head merges them.
 */
#pragma once
#include <math.h>
#include "engine.h"
#include "kv_formats.h"
#include "vector_math.h"

/* Query heads that are computed together where they share keys and values, and vectors of their results. */
#define GROUP 4
#define VALUES_AT_ONCE SIMD_VALUES
#define UNROLL_ALL _Pragma("GCC unroll 4")

struct attention_shape {
  int heads, kv_heads, head_dim, context;
  float scale, softcap;
  int window;
  /* Positions of a block. */
  int block;
  /* Offset in the worker's own memory of GROUP x block floats for scores, then (rows + 1) x 2 x group for the largest scores
   * and sums, then group x head_dim for the values of a block. */
  uint64_t scores;
  /* Where units share heads: offset in the arena of rows x heads x blocks x (head_dim + 2) floats. */
  uint64_t partials;
  /* Offset in the arena of a counter in a cache line of its own for every key/value head. */
  uint64_t finished;
};

/* What a chunk has to do: these key/value heads, and of each every `parts`-th block from `part` on. */
struct attention_unit {
  struct range heads;
  int part, parts;
};

/* Into how many parts each head is cut, so that workers get equally many units; no more than there are blocks. */
static inline int context_parts(const struct worker *me, int kv_heads, int blocks) {
  int divisor = me->engine->threads, rest = kv_heads;
  while (rest != 0) {
    const int next = divisor % rest;
    divisor = rest;
    rest = next;
  }
  const int even = me->engine->threads / divisor, most = ((1 << CHUNK_BITS) - 1) / kv_heads;
  const int parts = even < blocks ? even : blocks;
  return parts < most ? parts : most;
}
static inline int context_chunks(const struct worker *me, int kv_heads, int blocks) {
  return kv_heads * context_parts(me, kv_heads, blocks);
}
static inline struct attention_unit context_unit(const struct worker *me, int kv_heads) {
  const int parts = me->chunks / kv_heads, head = me->chunk / parts;
  return (struct attention_unit){{head, head + 1}, me->chunk % parts, parts};
}

/* Turns scores into weights exp(s - largest), and returns their sum. */
static inline float softmax_sum(float *scores, int count, float *largest) {
  v16 top = v16_set(scores[0]);
  int i = 0;
  for (; i + 16 <= count; i += 16) top = v16_max(top, v16_load(scores + i));
  float most = v16_largest(top);
  for (; i < count; ++i) most = scores[i] > most ? scores[i] : most;
  const v16 shift = v16_set(most);
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
  *largest = most;
  return sum;
}

static inline void cap_scores(float *scores, int count, float cap) {
  for (int i = 0; i < count; i += 16) {
    const int n = count - i < 16 ? count - i : 16;
    const v16 s = v16_mul(v16_load_part(scores + i, n), v16_set(1.0f / cap));
    v16_store_part(scores + i, v16_mul(v16_tanh(s), v16_set(cap)), n);
  }
}

/* Memory that is read soon. Keys of the next block are asked for while values are read, and the other way round: both are too
 * short for the processor to see them come. */
static inline void fetch_ahead(const void *from, size_t bytes) {
  for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch((const uint8_t *)from + at, 0, 3);
}

/* Of a block of a row: whether its heads are the first to read it, whether the row has no other block, and which positions,
 * counted from its own first one, this unit reads next. */
struct surroundings {
  bool first, alone;
  int next, next_count;
};

/* Of some positions and one row: for every query head of a group the largest score, the sum of exp(score - largest), and the
 * values weighted by these. */
struct partial {
  float *values, *largest, *sums;
};

/* After all positions: the mean of the values. */
static inline void finish_values(struct partial all, int group, int head_dim) {
  for (int h = 0; h < group; ++h) {
    float *y = all.values + (size_t)h * (size_t)head_dim;
    const v16 scale = v16_set(1.0f / all.sums[h]);
    for (int i = 0; i < head_dim; i += 16) {
      const int n = head_dim - i < 16 ? head_dim - i : 16;
      v16_store_part(y + i, v16_mul(v16_load_part(y + i, n), scale), n);
    }
  }
}

/* Adds the positions of `from` to `to`. */
static __attribute__((noinline, unused)) void merge_partial(struct partial to, struct partial from, int group, int head_dim) {
  for (int h = 0; h < group; ++h) {
    const float largest = to.largest[h] > from.largest[h] ? to.largest[h] : from.largest[h];
    const float shifts[16] = {to.largest[h] - largest, from.largest[h] - largest};
    float factors[16];
    v16_store(factors, v16_exp(v16_load(shifts)));
    to.largest[h] = largest;
    to.sums[h] = to.sums[h] * factors[0] + from.sums[h] * factors[1];
    float *y = to.values + (size_t)h * (size_t)head_dim;
    const float *x = from.values + (size_t)h * (size_t)head_dim;
    for (int i = 0; i < head_dim; i += 16) {
      const int n = head_dim - i < 16 ? head_dim - i : 16;
      const v16 old = v16_mul(v16_load_part(y + i, n), v16_set(factors[0]));
      v16_store_part(y + i, v16_fma(v16_load_part(x + i, n), v16_set(factors[1]), old), n);
    }
  }
}

/* The positions that a row attends to, and the blocks that they lie in. */
struct reach {
  int first, last, first_block, last_block;
};

static inline struct reach reach_of(int position, const struct attention_shape *a) {
  const int first = a->window > 0 && position >= a->window ? position - a->window + 1 : 0;
  return (struct reach){first, position, first / a->block, position / a->block};
}

/* Where the result of a block waits for the others of its row and head. */
static inline struct partial waiting_at(const struct worker *me, const struct attention_shape *a, int row, int kv_head,
                                        int block) {
  const size_t group = (size_t)(a->heads / a->kv_heads), width = group * (size_t)a->head_dim;
  const size_t blocks = (size_t)((a->context + a->block - 1) / a->block);
  const size_t index = ((size_t)row * (size_t)a->kv_heads + (size_t)kv_head) * blocks + (size_t)block;
  float *values = (float *)scratch(me, a->partials) + index * (width + 2 * group);
  return (struct partial){values, values + width, values + width + group};
}

/* True for the unit that is the last of its head to come here; it sees what the others have written. */
static inline bool finishes_head(struct worker *me, const struct attention_shape *a, int kv_head, int parts) {
  struct aligned_word *counters = scratch(me, a->finished);
  _Atomic uint64_t *finished = &counters[kv_head].value;
  uint64_t word = atomic_load_explicit(finished, memory_order_relaxed), count;
  do {
    /* What other stages have counted says nothing about this one. */
    count = (word >> CHUNK_BITS == me->stage ? word & ((1 << CHUNK_BITS) - 1) : 0) + 1;
  } while (!atomic_compare_exchange_weak_explicit(finished, &word, me->stage << CHUNK_BITS | count, memory_order_acq_rel,
                                                  memory_order_relaxed));
  return count == (uint64_t)parts;
}

/* Merges the blocks of all rows of a head that wait. */
static __attribute__((noinline, unused)) void merge_head(struct worker *me, float *y, const int32_t *positions, int rows,
                                                         const struct attention_shape *a, int kv_head, float *states) {
  const int group = a->heads / a->kv_heads;
  struct partial all = {NULL, states, states + group};
  for (int row = 0; row < rows; ++row) {
    const struct reach reach = reach_of(positions[row], a);
    if (positions[row] < 0 || reach.first_block == reach.last_block) continue;
    all.values = y + ((size_t)row * (size_t)a->heads + (size_t)(kv_head * group)) * (size_t)a->head_dim;
    const struct partial first = waiting_at(me, a, row, kv_head, reach.first_block);
    memcpy(all.values, first.values, (size_t)(group * a->head_dim) * sizeof *all.values);
    memcpy(all.largest, first.largest, (size_t)group * sizeof *all.largest);
    memcpy(all.sums, first.sums, (size_t)group * sizeof *all.sums);
    for (int block = reach.first_block + 1; block <= reach.last_block; ++block)
      merge_partial(all, waiting_at(me, a, row, kv_head, block), group, a->head_dim);
    finish_values(all, group, a->head_dim);
  }
}

#define DEFINE_APPEND(dtype, element)                                                                                    \
  static __attribute__((noinline, unused)) void dtype##_append_kv(                                                       \
      element *keys, element *values, const float *k, const float *v, const int32_t *slots, const int32_t *positions,    \
      int rows, int kv_heads, int head_dim, int context, int block, struct attention_unit unit) {                        \
    const size_t size = (size_t)dtype##_position(head_dim);                                                              \
    for (int row = 0; row < rows; ++row) {                                                                               \
      if (positions[row] < 0 || positions[row] / block % unit.parts != unit.part) continue;                              \
      for (int head = unit.heads.begin; head < unit.heads.end; ++head) {                                                 \
        const size_t from = ((size_t)row * (size_t)kv_heads + (size_t)head) * (size_t)head_dim;                          \
        const size_t to = (((size_t)slots[row] * (size_t)kv_heads + (size_t)head) * (size_t)context +                    \
                           (size_t)positions[row]) * size;                                                               \
        dtype##_store_state(keys + to, k + from, head_dim);                                                              \
        dtype##_store_state(values + to, v + from, head_dim);                                                            \
      }                                                                                                                  \
    }                                                                                                                    \
  }

DEFINE_APPEND(f32, float)
DEFINE_APPEND(bf16, uint16_t)
DEFINE_APPEND(q8_0, uint8_t)

/* Attention with heads of `dim` elements, of which `group` share keys and values: programs define what they need. */
#define DEFINE_ATTENTION(dtype, element, dim, group)                                                                     \
  /* scores[h][p] for `heads` query heads (a constant) that share keys: four keys are loaded once for all of them. */    \
  static inline __attribute__((always_inline)) void dtype##_scores_##dim##x##group(                                      \
      int heads, float *scores, int stride, const float *q, const element *keys, int count, float scale,                 \
      const element *ahead) {                                                                                            \
    const size_t size = (size_t)dtype##_position(dim);                                                                   \
    for (int p = 0; p < count; p += 16) {                                                                                \
      const int n = count - p < 16 ? count - p : 16;                                                                     \
      v16 sums[GROUP][16];                                                                                               \
      if (ahead) fetch_ahead(ahead + (size_t)p * size, 16 * size * sizeof *ahead);                                       \
      for (int j = 0; j < 16; j += SIMD_KEYS) {                                                                          \
        v16 sum[GROUP][SIMD_KEYS];                                                                                       \
        UNROLL_ALL                                                                                                       \
        for (int h = 0; h < heads; ++h)                                                                                  \
          UNROLL_ALL                                                                                                     \
          for (int k = 0; k < SIMD_KEYS; ++k) sum[h][k] = v16_zero();                                                    \
        for (int i = 0; i < dim; i += 16) {                                                                              \
          v16 key[SIMD_KEYS];                                                                                            \
          UNROLL_ALL                                                                                                     \
          for (int k = 0; k < SIMD_KEYS; ++k) {                                                                          \
            /* Positions that are not there are computed as the last one, and not stored. */                             \
            const int place = j + k < n ? p + j + k : count - 1;                                                         \
            key[k] = dtype##_load_state(keys + (size_t)place * size, i, dim - i);                                        \
          }                                                                                                              \
          UNROLL_ALL                                                                                                     \
          for (int h = 0; h < heads; ++h) {                                                                              \
            const v16 query = f32_load_state(q + h * dim, i, dim - i);                                                   \
            UNROLL_ALL                                                                                                   \
            for (int k = 0; k < SIMD_KEYS; ++k) sum[h][k] = v16_fma(query, key[k], sum[h][k]);                           \
          }                                                                                                              \
        }                                                                                                                \
        UNROLL_ALL                                                                                                       \
        for (int h = 0; h < heads; ++h)                                                                                  \
          UNROLL_ALL                                                                                                     \
          for (int k = 0; k < SIMD_KEYS; ++k) sums[h][j + k] = sum[h][k];                                                \
      }                                                                                                                  \
      for (int h = 0; h < heads; ++h)                                                                                    \
        v16_store_part(scores + (size_t)h * (size_t)stride + p, v16_mul(v16_sum16(sums[h]), v16_set(scale)), n);         \
    }                                                                                                                    \
  }                                                                                                                      \
                                                                                                                         \
  /* y[h] = sum over p of weights[h][p] * values[p] * scale[h], for 16 x `vectors` elements (a constant) from `first` on. */ \
  static inline __attribute__((always_inline)) void dtype##_weigh_##dim##x##group(                                       \
      int heads, int vectors, float *y, const float *weights, const element *values, int count, int first, int stride,   \
      const float *scale, const element *ahead, int ahead_count) {                                                       \
    const size_t size = (size_t)dtype##_position(dim);                                                                   \
    v16 sums[GROUP][VALUES_AT_ONCE];                                                                                     \
    for (int h = 0; h < heads; ++h)                                                                                      \
      for (int j = 0; j < vectors; ++j) sums[h][j] = v16_zero();                                                         \
    for (int p = 0; p < count; ++p, values += size) {                                                                    \
      if (p < ahead_count) fetch_ahead(ahead + (size_t)p * size, size * sizeof *ahead);                                  \
      for (int j = 0; j < vectors; ++j) {                                                                                \
        const v16 value = dtype##_load_state(values, first + 16 * j, dim - first - 16 * j);                              \
        for (int h = 0; h < heads; ++h)                                                                                  \
          sums[h][j] = v16_fma(v16_set(weights[(size_t)h * (size_t)stride + (size_t)p]), value, sums[h][j]);             \
      }                                                                                                                  \
    }                                                                                                                    \
    for (int h = 0; h < heads; ++h) {                                                                                    \
      for (int j = 0; j < vectors; ++j) {                                                                                \
        const int i = first + 16 * j, n = dim - i < 16 ? dim - i : 16;                                                   \
        v16_store_part(y + h * dim + i, v16_mul(sums[h][j], v16_set(scale[h])), n);                                      \
      }                                                                                                                  \
    }                                                                                                                    \
  }                                                                                                                      \
                                                                                                                         \
  /* `heads` query heads at some positions. */                                                                           \
  static inline __attribute__((always_inline)) void dtype##_attend_##dim##x##group(                                      \
      int heads, struct partial to, const float *q, const element *keys, const element *values, int count,               \
      const struct attention_shape *a, float *scores, struct surroundings around) {                                      \
    float scale[GROUP];                                                                                                  \
    dtype##_scores_##dim##x##group(heads, scores, a->block, q, keys, count, a->scale, around.first ? values : NULL);     \
    for (int h = 0; h < heads; ++h) {                                                                                    \
      float *row = scores + (size_t)h * (size_t)a->block;                                                                \
      if (a->softcap > 0.0f) cap_scores(row, count, a->softcap);                                                         \
      to.sums[h] = softmax_sum(row, count, to.largest + h);                                                              \
      scale[h] = around.alone ? 1.0f / to.sums[h] : 1.0f;                                                                \
    }                                                                                                                    \
    const element *ahead = keys + (size_t)around.next * (size_t)dtype##_position(dim);                                   \
    int i = 0, ahead_count = around.first ? around.next_count : 0;                                                       \
    for (; i + 16 * VALUES_AT_ONCE <= dim; i += 16 * VALUES_AT_ONCE, ahead_count = 0)                                    \
      dtype##_weigh_##dim##x##group(heads, VALUES_AT_ONCE, to.values, scores, values, count, i, a->block, scale, ahead,  \
                                    ahead_count);                                                                        \
    const int rest = (dim % (16 * VALUES_AT_ONCE) + 15) / 16;                                                            \
    if (rest > 0)                                                                                                        \
      dtype##_weigh_##dim##x##group(heads, rest, to.values, scores, values, count, i, a->block, scale, ahead, ahead_count); \
  }                                                                                                                      \
                                                                                                                         \
  /* All query heads of a key/value head. */                                                                             \
  static __attribute__((noinline, unused)) void dtype##_attend_all_##dim##x##group(                                      \
      struct partial to, const float *q, const element *keys, const element *values, int count,                          \
      const struct attention_shape *a, float *scores, struct surroundings around) {                                      \
    int g = 0;                                                                                                           \
    for (; g + GROUP <= group; g += GROUP, around.first = false) {                                                       \
      const struct partial part = {to.values + g * dim, to.largest + g, to.sums + g};                                    \
      dtype##_attend_##dim##x##group(GROUP, part, q + g * dim, keys, values, count, a, scores, around);                  \
    }                                                                                                                    \
    const struct partial part = {to.values + g * dim, to.largest + g, to.sums + g};                                      \
    if (group % GROUP > 0)                                                                                               \
      dtype##_attend_##dim##x##group(group % GROUP, part, q + g * dim, keys, values, count, a, scores, around);          \
  }                                                                                                                      \
                                                                                                                         \
  static __attribute__((noinline, unused)) void dtype##_attention_##dim##x##group(                                       \
      struct worker *me, float *y, const float *q, const element *keys, const element *values, const int32_t *slots,     \
      const int32_t *positions, int rows, struct attention_shape a, struct attention_unit unit) {                        \
    const int width = group * dim;                                                                                       \
    const size_t size = (size_t)dtype##_position(dim);                                                                   \
    float *scores = own(me, a.scores), *states = scores + GROUP * a.block, *block_values = states + 2 * group * (rows + 1); \
    int last_block = -1;                                                                                                 \
    bool waits = false;                                                                                                  \
    for (int row = 0; row < rows; ++row) {                                                                               \
      const struct reach reach = reach_of(positions[row], &a);                                                           \
      if (positions[row] < 0) continue;                                                                                  \
      if (reach.last_block > last_block) last_block = reach.last_block;                                                  \
      if (reach.last_block > reach.first_block) waits = unit.parts > 1;                                                  \
    }                                                                                                                    \
    for (int kv_head = unit.heads.begin; kv_head < unit.heads.end; ++kv_head) {                                          \
      float *head_y = y + (size_t)(kv_head * width);                                                                     \
      const float *head_q = q + (size_t)(kv_head * width);                                                               \
      const size_t row_width = (size_t)(a.kv_heads * width);                                                             \
      for (int row = 0; row < rows && unit.part == 0; ++row)                                                             \
        if (positions[row] < 0) memset(head_y + (size_t)row * row_width, 0, (size_t)width * sizeof *y);                  \
      for (int block = unit.part; block <= last_block; block += unit.parts) {                                            \
        for (int row = 0; row < rows; ++row) {                                                                           \
          const struct reach reach = reach_of(positions[row], &a);                                                       \
          if (positions[row] < 0 || block < reach.first_block || block > reach.last_block) continue;                     \
          const int first = block == reach.first_block ? reach.first : block * a.block;                                  \
          const int count = (block == reach.last_block ? reach.last + 1 : (block + 1) * a.block) - first;                \
          const size_t start = (((size_t)slots[row] * (size_t)a.kv_heads + (size_t)kv_head) * (size_t)a.context +        \
                                (size_t)first) * size;                                                                   \
          const bool alone = reach.first_block == reach.last_block;                                                      \
          const int next = (block + unit.parts) * a.block, left = reach.last + 1 - next;                                 \
          const struct surroundings around = {true, alone, next - first, left < count ? left : count};                   \
          const struct partial all = {head_y + (size_t)row * row_width, states + 2 * group * row,                        \
                                      states + 2 * group * row + group};                                                 \
          const struct partial now = {block_values, states + 2 * group * rows, states + 2 * group * rows + group};       \
          const bool merges = unit.parts == 1 && block > reach.first_block;                                              \
          const struct partial to = merges ? now : alone || unit.parts == 1 ? all : waiting_at(me, &a, row, kv_head, block); \
          dtype##_attend_all_##dim##x##group(to, head_q + (size_t)row * row_width, keys + start, values + start, count, &a, scores, around); \
          me->bytes_read += 2 * (uint64_t)count * (uint64_t)size * sizeof *keys;                                         \
          if (merges) merge_partial(all, now, group, dim);                                                               \
          if (merges && block == reach.last_block) finish_values(all, group, dim);                                       \
        }                                                                                                                \
      }                                                                                                                  \
      if (waits && finishes_head(me, &a, kv_head, unit.parts)) merge_head(me, y, positions, rows, &a, kv_head, states);  \
    }                                                                                                                    \
  }
