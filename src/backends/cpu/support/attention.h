/*
 * KV cache and attention. Caches are [slots, kv_heads, context, head_dim] in tiles of 16 positions (kv_formats.h), so that
 * the context is a multiple of 16; a row reads the positions of its slot up to its own. Idle rows have position -1.
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

/* Positions whose values stay in the nearest cache until all of their dimensions are read for all heads: the fewer, the more
 * alike to a single stream. */
#define POSITIONS_AT_ONCE SIMD_POSITIONS
/* Elements of a vector of which `left` are left. */
#define PART(left) ((left) < 16 ? (left) : 16)

struct attention_shape {
  int heads, kv_heads, head_dim, context;
  float scale, softcap;
  int window;
  /* Positions of a block: whole tiles. */
  int block;
  /* Offset in the worker's own memory of GROUP x block floats for scores, then (rows + 1) x 2 x group for the largest scores
   * and sums, then group x head_dim for the values of a block. */
  uint64_t scores;
  /* The same of what the queries of all rows and one key/value head take, as the format of the cache wants them; and of the weights
   * of a block's positions. */
  uint64_t queries, weights;
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
    const int n = PART(count - i);
    const v16 s = v16_mul(v16_load_part(scores + i, n), v16_set(1.0f / cap));
    v16_store_part(scores + i, v16_mul(v16_tanh(s), v16_set(cap)), n);
  }
}

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
      const int n = PART(head_dim - i);
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
      const int n = PART(head_dim - i);
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

/* Blocks that a unit reads, and whether other units wait to be merged with it. A single row's are cut into runs that follow one
 * another in memory; of several rows, which end at different blocks, units take every `parts`-th. */
struct blocks {
  int begin, end, step;
  bool waits;
};

static inline struct blocks blocks_of(const int32_t *positions, int rows, const struct attention_shape *a,
                                      struct attention_unit unit) {
  struct blocks blocks = {unit.part, 0, unit.parts, false};
  for (int row = 0; row < rows; ++row) {
    if (positions[row] < 0) continue;
    const struct reach reach = reach_of(positions[row], a);
    if (reach.last_block >= blocks.end) blocks.end = reach.last_block + 1;
    if (reach.last_block > reach.first_block) blocks.waits = unit.parts > 1;
    if (rows > 1) continue;
    const int first = reach.first_block, count = reach.last_block + 1 - first;
    blocks.begin = first + count * unit.part / unit.parts;
    blocks.end = first + count * (unit.part + 1) / unit.parts;
    blocks.step = 1;
  }
  return blocks;
}

/* The part that reads a block in which a row's own position lies: the last, if there is one row. */
static inline int part_that_appends(int block, int rows, int parts) { return rows > 1 ? block % parts : parts - 1; }

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

/* Where the tile of a position begins, in elements of which a position has `size`. */
static inline size_t tile_start(int slot, int kv_heads, int head, int context, int position, int size) {
  return (((size_t)slot * (size_t)kv_heads + (size_t)head) * (size_t)context + (size_t)(position & -TILE)) * (size_t)size;
}

#define DEFINE_APPEND(dtype, element)                                                                                    \
  static __attribute__((noinline, unused)) void dtype##_append_kv(                                                       \
      element *keys, element *values, const float *k, const float *v, const int32_t *slots, const int32_t *positions,    \
      int rows, int kv_heads, int head_dim, int context, int block, struct attention_unit unit) {                        \
    for (int row = 0; row < rows; ++row) {                                                                               \
      const int position = positions[row];                                                                               \
      if (position < 0 || part_that_appends(position / block, rows, unit.parts) != unit.part) continue;                  \
      for (int head = unit.heads.begin; head < unit.heads.end; ++head) {                                                 \
        const size_t from = ((size_t)row * (size_t)kv_heads + (size_t)head) * (size_t)head_dim;                          \
        const size_t to = tile_start(slots[row], kv_heads, head, context, position, dtype##_position(head_dim));         \
        dtype##_store_key(keys + to, position % TILE, k + from, head_dim);                                               \
        dtype##_store_value(values + to, position % TILE, v + from, head_dim);                                           \
      }                                                                                                                  \
    }                                                                                                                    \
  }

DEFINE_APPEND(f32, float)
DEFINE_APPEND(bf16, uint16_t)
DEFINE_APPEND(q8_0, uint8_t)

/* Scores of `heads` query heads, a constant, at the tiles of some positions. A function of its own: inlined, it gets the registers
 * that the sums of values leave. */
#define DEFINE_SCORE(dtype, element, dim, heads, name)                                                                   \
  static __attribute__((noinline, unused)) void name(float *scores, dtype##_queries q, const element *keys, int begin,   \
                                                     int end, const struct attention_shape *a) {                         \
    for (int tile = begin & -TILE; tile < end; tile += TILE) {                                                           \
      v16 sums[GROUP];                                                                                                   \
      dtype##_dots(heads, dim, sums, q, keys + tile * dtype##_position(dim));                                            \
      for (int h = 0; h < heads; ++h) v16_store(scores + h * a->block + tile, v16_mul(sums[h], v16_set(a->scale)));      \
    }                                                                                                                    \
  }

/* Attention with heads of `dim` elements, of which `group` share keys and values: programs define what they need. Positions
 * `begin` .. `end` are counted from the tile where the keys and values begin, and so are scores. */
#define DEFINE_ATTENTION(dtype, element, dim, group)                                                                     \
  DEFINE_SCORE(dtype, element, dim, GROUP, dtype##_score_whole_##dim##x##group)                                          \
  DEFINE_SCORE(dtype, element, dim, group % GROUP, dtype##_score_rest_##dim##x##group)                                   \
                                                                                                                         \
  /* Sums of weighted values, 16 x `vectors` elements (a constant) from `first` on, over a few tiles that stay in the    \
   * nearest cache until all elements have been summed. */                                                               \
  static inline __attribute__((always_inline)) void dtype##_weigh_##dim##x##group(                                       \
      int heads, int first, int vectors, float *y, dtype##_weights weights, const element *values, int begin, int end,   \
      int stride) {                                                                                                      \
    dtype##_sums sums[GROUP][VALUES_AT_ONCE];                                                                            \
    for (int h = 0; h < heads; ++h)                                                                                      \
      for (int j = 0, i = first; j < vectors; ++j, i += 16)                                                              \
        sums[h][j] = dtype##_load_sums(y + h * dim + i, PART(dim - i));                                                  \
    for (int tile = begin & -TILE; tile < end; tile += TILE)                                                             \
      dtype##_weigh(heads, dim, first, vectors, sums, weights, stride, values + tile * dtype##_position(dim), tile,      \
                    begin > tile ? begin - tile : 0, PART(end - tile));                                                  \
    for (int h = 0; h < heads; ++h)                                                                                      \
      for (int j = 0, i = first; j < vectors; ++j, i += 16)                                                              \
        dtype##_store_sums(y + h * dim + i, sums[h][j], PART(dim - i));                                                  \
  }                                                                                                                      \
                                                                                                                         \
  /* `heads` query heads at some positions. */                                                                           \
  static inline __attribute__((always_inline)) void dtype##_attend_##dim##x##group(                                      \
      int heads, struct partial to, dtype##_queries q, const element *keys, const element *values, int begin, int end,   \
      const struct attention_shape *a, float *scores, void *memory, bool alone) {                                        \
    const int stride = a->block;                                                                                         \
    if (heads == GROUP) dtype##_score_whole_##dim##x##group(scores, q, keys, begin, end, a);                             \
    else dtype##_score_rest_##dim##x##group(scores, q, keys, begin, end, a);                                             \
    for (int h = 0; h < heads; ++h) {                                                                                    \
      float *row = scores + h * stride + begin;                                                                          \
      if (a->softcap > 0.0f) cap_scores(row, end - begin, a->softcap);                                                   \
      to.sums[h] = softmax_sum(row, end - begin, to.largest + h);                                                        \
    }                                                                                                                    \
    const dtype##_weights weights = dtype##_make_weights(memory, scores, heads, stride, dim, values, begin, end);        \
    memset(to.values, 0, (size_t)(heads * dim) * sizeof *to.values);                                                     \
    /* Dimensions that are summed together; if they are all, positions need not stay in the nearest cache. */             \
    const int width = 16 * SIMD_VALUES(heads), together = dim > width ? POSITIONS_AT_ONCE : stride;                      \
    for (int from = begin, next; from < end; from = next) {                                                              \
      next = (from & -TILE) + together < end ? (from & -TILE) + together : end;                                          \
      int i = 0;                                                                                                         \
      for (; i + width <= dim; i += width)                                                                               \
        dtype##_weigh_##dim##x##group(heads, i, SIMD_VALUES(heads), to.values, weights, values, from, next, stride);     \
      const int rest = (dim % width + 15) / 16;                                                                          \
      if (rest > 0) dtype##_weigh_##dim##x##group(heads, i, rest, to.values, weights, values, from, next, stride);       \
    }                                                                                                                    \
    dtype##_finish_sums(to.values, heads, dim, weights);                                                                 \
    if (alone) finish_values(to, heads, dim);                                                                            \
  }                                                                                                                      \
                                                                                                                         \
  /* All query heads of a key/value head. */                                                                             \
  static __attribute__((noinline, unused)) void dtype##_attend_all_##dim##x##group(                                      \
      struct partial to, dtype##_queries q, const element *keys, const element *values, int begin, int end,              \
      const struct attention_shape *a, float *scores, void *memory, bool alone) {                                        \
    int g = 0;                                                                                                           \
    for (; g + GROUP <= group; g += GROUP) {                                                                             \
      const struct partial part = {to.values + g * dim, to.largest + g, to.sums + g};                                    \
      dtype##_attend_##dim##x##group(GROUP, part, dtype##_queries_from(q, g, dim), keys, values, begin, end, a, scores, memory, alone);\
    }                                                                                                                    \
    const struct partial part = {to.values + g * dim, to.largest + g, to.sums + g};                                      \
    if (group % GROUP > 0)                                                                                               \
      dtype##_attend_##dim##x##group(group % GROUP, part, dtype##_queries_from(q, g, dim), keys, values, begin, end, a,  \
                                     scores, memory, alone);                                                             \
  }                                                                                                                      \
                                                                                                                         \
  static __attribute__((noinline, unused)) void dtype##_attention_##dim##x##group(                                       \
      struct worker *me, float *y, const float *q, const element *keys, const element *values, const int32_t *slots,     \
      const int32_t *positions, int rows, struct attention_shape a, struct attention_unit unit) {                        \
    const int width = group * dim, size = dtype##_position(dim);                                                         \
    float *scores = own(me, a.scores), *states = scores + GROUP * a.block, *block_values = states + 2 * group * (rows + 1); \
    const struct blocks blocks = blocks_of(positions, rows, &a, unit);                                                   \
    for (int kv_head = unit.heads.begin; kv_head < unit.heads.end; ++kv_head) {                                          \
      float *head_y = y + (size_t)(kv_head * width);                                                                     \
      const float *head_q = q + (size_t)(kv_head * width);                                                               \
      const size_t row_width = (size_t)(a.kv_heads * width);                                                             \
      for (int row = 0; row < rows && unit.part == 0; ++row)                                                             \
        if (positions[row] < 0) memset(head_y + (size_t)row * row_width, 0, (size_t)width * sizeof *y);                  \
      for (int row = 0; row < rows; ++row)                                                                               \
        if (positions[row] >= 0)                                                                                         \
          dtype##_make_queries(me, a.queries, row, head_q + (size_t)row * row_width, group, dim);                        \
      for (int block = blocks.begin; block < blocks.end; block += blocks.step) {                                         \
        for (int row = 0; row < rows; ++row) {                                                                           \
          const struct reach reach = reach_of(positions[row], &a);                                                       \
          if (positions[row] < 0 || block < reach.first_block || block > reach.last_block) continue;                     \
          const int start = block * a.block;                                                                             \
          const int end = block == reach.last_block ? reach.last + 1 - start : a.block;                                  \
          const int begin = block == reach.first_block ? reach.first - start : 0;                                        \
          const size_t at = tile_start(slots[row], a.kv_heads, kv_head, a.context, start, size);                         \
          const bool alone = reach.first_block == reach.last_block;                                                      \
          const struct partial all = {head_y + (size_t)row * row_width, states + 2 * group * row,                        \
                                      states + 2 * group * row + group};                                                 \
          const struct partial now = {block_values, states + 2 * group * rows, states + 2 * group * rows + group};       \
          const bool merges = unit.parts == 1 && block > reach.first_block;                                              \
          const struct partial to =                                                                                      \
              merges ? now : alone || unit.parts == 1 ? all : waiting_at(me, &a, row, kv_head, block);                   \
          const dtype##_queries queries =                                                                                \
              dtype##_queries_at(me, a.queries, row, head_q + (size_t)row * row_width, group, dim);                      \
          dtype##_attend_all_##dim##x##group(to, queries, keys + at, values + at, begin, end, &a, scores,                \
                                             own(me, a.weights), alone);                                                 \
          me->bytes_read += 2 * (uint64_t)(end - begin) * (uint64_t)size * sizeof *keys;                                 \
          if (merges) merge_partial(all, now, group, dim);                                                               \
          if (merges && block == reach.last_block) finish_values(all, group, dim);                                       \
        }                                                                                                                \
      }                                                                                                                  \
      if (blocks.waits && finishes_head(me, &a, kv_head, unit.parts))                                                    \
        merge_head(me, y, positions, rows, &a, kv_head, states);                                                         \
    }                                                                                                                    \
  }
