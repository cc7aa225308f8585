/*
 * KV cache and attention. Caches are [slots, kv_heads, context, head_dim]; a row reads the positions of its slot up to its
 * own. Work is divided by key/value head and by span of SPAN positions, so that one long text keeps all blocks busy: a block
 * stores the new keys of its span, computes what its span contributes, and the block that finishes a head last puts the
 * contributions together, in the order of their positions, whoever made them.
 *
 * Borders of spans do not depend on the rows of a step: a row's value is the same alone and beside others.
 */
#pragma once
#include "elementwise.cuh"

/* Query heads that are computed together: a key is loaded once for all of them. */
#define GROUP 4

/* Positions `begin` up to `end`; span `index` of `count`. */
struct span {
  int head, index, count;
};

/* Spans that the longest row of this step reaches; at least one. */
DEVICE int spans_of(const int32_t *positions, int rows, int length) {
  int last = 0;
  for (int row = 0; row < rows; ++row) last = positions[row] > last ? positions[row] : last;
  return last / length + 1;
}

/* Round to nearest, ties to even. */
DEVICE uint16_t to_bf16(float value) {
  const uint32_t bits = float_to_bits(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40);
  return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
DEVICE void store_state(float *to, float value) { *to = value; }
DEVICE void store_state(uint16_t *to, float value) { *to = to_bf16(value); }

/* COUNT consecutive elements; 16 bytes at once where they are that many. */
template <int COUNT>
DEVICE void load_state(float to[COUNT], const float *from) {
  if (COUNT == 4) {
    const vec16 v = *(const vec16 *)from;
    for (int i = 0; i < COUNT; ++i) to[i] = bits_to_float(v.word[i]);
  } else {
    for (int i = 0; i < COUNT; ++i) to[i] = from[i];
  }
}
template <int COUNT>
DEVICE void load_state(float to[COUNT], const uint16_t *from) {
  if (COUNT == 8) {
    const vec16 v = *(const vec16 *)from;
    for (int i = 0; i < COUNT; ++i) to[i] = bits_to_float(i % 2 ? v.word[i / 2] & 0xffff0000u : v.word[i / 2] << 16);
  } else {
    for (int i = 0; i < COUNT; ++i) to[i] = bits_to_float((uint32_t)from[i] << 16);
  }
}

/* Stores the rows whose positions are within `first` .. `end` - 1, heads `heads`. */
template <typename E>
DEVICE void append_kv(struct worker *me, E *keys, E *values, const float *k, const float *v, const int32_t *slots,
                      const int32_t *positions, int rows, int kv_heads, int head_dim, int context, struct range heads, int first,
                      int end) {
  const int count = (heads.end - heads.begin) * head_dim;
  for (int i = me->thread; i < rows * count; i += COMPUTE_THREADS) {
    const int row = i / count, head = heads.begin + i % count / head_dim, at = i % head_dim, position = positions[row];
    if (position < 0 || position < first || position >= end) continue;
    const size_t from = ((size_t)row * (size_t)kv_heads + (size_t)head) * (size_t)head_dim + (size_t)at;
    const size_t to =
        (((size_t)slots[row] * (size_t)kv_heads + (size_t)head) * (size_t)context + (size_t)position) * (size_t)head_dim +
        (size_t)at;
    store_state(keys + to, k[from]);
    store_state(values + to, v[from]);
  }
}

#define f32_append_kv append_kv<float>
#define bf16_append_kv append_kv<uint16_t>

/* What is the same for all layers. */
struct attention_shape {
  int heads, kv_heads, context;
  float scale, softcap;
  int window;
  /* Contributions: for each row, head and span, the largest score, the sum of weights, and HEAD_DIM weighted sums. */
  float *contributions;
  int spans;
};

DEVICE float *contribution(const struct attention_shape &shape, int head_dim, int row, int head, int span) {
  return shape.contributions +
         (((size_t)row * (size_t)shape.heads + (size_t)head) * (size_t)shape.spans + (size_t)span) * (size_t)(head_dim + 2);
}

/* Positions that a row sees. */
DEVICE struct range seen_by(int position, int window) {
  return {window > 0 && position >= window ? position - window + 1 : 0, position + 1};
}

/* Scores of positions `part` for `heads` query heads, in shared memory: scores[head * LENGTH + position - part.begin]. */
template <typename E, int HEAD_DIM, int VEC, int LENGTH>
DEVICE void span_scores(struct worker *me, float *scores, const float *q, const E *keys, struct range part, int heads,
                        const struct attention_shape &shape) {
  constexpr int vectors = HEAD_DIM / VEC;
  constexpr int lanes = vectors > 16 ? 32 : vectors > 8 ? 16 : vectors > 4 ? 8 : vectors > 2 ? 4 : 2;
  constexpr int pieces = (vectors + lanes - 1) / lanes, keys_at_once = 32 / lanes;
  const int lane = me->lane % lanes, first = part.begin + me->warp * keys_at_once + me->lane / lanes;
  float mine[GROUP][pieces][VEC];
  for (int h = 0; h < GROUP; ++h)
    for (int p = 0; p < pieces; ++p)
      for (int i = 0; i < VEC; ++i) {
        const int vector = lane + p * lanes;
        mine[h][p][i] = h < heads && vector < vectors ? q[h * HEAD_DIM + vector * VEC + i] : 0.0f;
      }
  /* All lanes go through all rounds, since they add up together. */
  const int rounds = (part.end - part.begin + COMPUTE_WARPS * keys_at_once - 1) / (COMPUTE_WARPS * keys_at_once);
  for (int round = 0; round < rounds; ++round) {
    const int position = first + round * COMPUTE_WARPS * keys_at_once;
    const bool is_there = position < part.end;
    float sums[GROUP] = {0.0f, 0.0f, 0.0f, 0.0f};
    if (is_there) {
      for (int p = 0; p < pieces; ++p) {
        const int vector = lane + p * lanes;
        if (vector >= vectors) continue;
        float key[VEC];
        load_state<VEC>(key, keys + (size_t)position * HEAD_DIM + vector * VEC);
        for (int h = 0; h < GROUP; ++h)
          for (int i = 0; i < VEC; ++i) sums[h] = fmaf(mine[h][p][i], key[i], sums[h]);
      }
    }
    for (int h = 0; h < GROUP; ++h) {
      float sum = sums[h];
      for (int mask = 1; mask < lanes; mask *= 2) sum += shuffle_xor(sum, mask);
      sum *= shape.scale;
      if (shape.softcap > 0.0f) sum = shape.softcap * tanhf(sum / shape.softcap);
      if (is_there && lane == 0 && h < heads) scores[h * LENGTH + position - part.begin] = sum;
    }
  }
}

/* Turns scores into weights exp(s - largest); their sum and the largest score go to the contribution of each head. */
template <int LENGTH>
DEVICE void span_weights(struct worker *me, float *scores, int count, int heads, float *to, size_t stride) {
  for (int h = me->warp; h < heads; h += COMPUTE_WARPS) {
    float *s = scores + h * LENGTH;
    float largest = -INFINITY_F;
    for (int i = me->lane; i < count; i += 32) largest = fmaxf(largest, s[i]);
    for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, shuffle_xor(largest, mask));
    float sum = 0.0f;
    for (int i = me->lane; i < count; i += 32) {
      s[i] = expf(s[i] - largest);
      sum += s[i];
    }
    sum = warp_sum(sum);
    if (me->lane == 0) {
      to[(size_t)h * stride] = largest;
      to[(size_t)h * stride + 1] = sum;
    }
  }
}

/* Weighted sums of values, each warp's positions first, then all warps' together. `sums` is shared memory. */
template <typename E, int HEAD_DIM, int VEC, int LENGTH>
DEVICE void span_values(struct worker *me, float *sums, const float *weights, const E *values, struct range part, int heads,
                        float *to, size_t stride) {
  constexpr int vectors = HEAD_DIM / VEC;
  constexpr int lanes = vectors > 16 ? 32 : vectors > 8 ? 16 : vectors > 4 ? 8 : vectors > 2 ? 4 : 2;
  constexpr int pieces = (vectors + lanes - 1) / lanes, at_once = 32 / lanes;
  const int lane = me->lane % lanes;
  float mine[GROUP][pieces][VEC];
  for (int h = 0; h < GROUP; ++h)
    for (int p = 0; p < pieces; ++p)
      for (int i = 0; i < VEC; ++i) mine[h][p][i] = 0.0f;
  for (int position = part.begin + me->warp * at_once + me->lane / lanes; position < part.end;
       position += COMPUTE_WARPS * at_once) {
    for (int p = 0; p < pieces; ++p) {
      const int vector = lane + p * lanes;
      if (vector >= vectors) continue;
      float value[VEC];
      load_state<VEC>(value, values + (size_t)position * HEAD_DIM + vector * VEC);
      for (int h = 0; h < GROUP; ++h) {
        const float weight = h < heads ? weights[h * LENGTH + position - part.begin] : 0.0f;
        for (int i = 0; i < VEC; ++i) mine[h][p][i] = fmaf(weight, value[i], mine[h][p][i]);
      }
    }
  }
  for (int h = 0; h < GROUP; ++h)
    for (int p = 0; p < pieces; ++p)
      for (int i = 0; i < VEC; ++i) {
        float sum = mine[h][p][i];
        for (int mask = lanes; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
        const int vector = lane + p * lanes;
        if (me->lane < lanes && vector < vectors) sums[(me->warp * GROUP + h) * HEAD_DIM + vector * VEC + i] = sum;
      }
  compute_sync();
  for (int i = me->thread; i < heads * HEAD_DIM; i += COMPUTE_THREADS) {
    float sum = sums[i];
    for (int warp = 1; warp < COMPUTE_WARPS; ++warp) sum += sums[warp * GROUP * HEAD_DIM + i];
    to[(size_t)(i / HEAD_DIM) * stride + 2 + (size_t)(i % HEAD_DIM)] = sum;
  }
}

/* Puts the contributions to a head's rows together; idle rows become zero. */
template <int HEAD_DIM, int LENGTH>
DEVICE void join_spans(struct worker *me, float *y, const int32_t *positions, int rows, int kv_head,
                       const struct attention_shape &shape) {
  const int group = shape.heads / shape.kv_heads;
  for (int i = me->thread; i < rows * group * HEAD_DIM; i += COMPUTE_THREADS) {
    const int row = i / (group * HEAD_DIM), head = kv_head * group + i / HEAD_DIM % group, at = i % HEAD_DIM;
    float *result = y + ((size_t)row * (size_t)shape.heads + (size_t)head) * HEAD_DIM + at;
    if (positions[row] < 0) {
      *result = 0.0f;
      continue;
    }
    const struct range seen = seen_by(positions[row], shape.window);
    const int first = seen.begin / LENGTH, last = (seen.end - 1) / LENGTH;
    float largest = -INFINITY_F;
#pragma unroll 8
    for (int s = first; s <= last; ++s) largest = fmaxf(largest, contribution(shape, HEAD_DIM, row, head, s)[0]);
    float weight = 0.0f, sum = 0.0f;
#pragma unroll 8
    for (int s = first; s <= last; ++s) {
      const float *part = contribution(shape, HEAD_DIM, row, head, s);
      const float factor = expf(part[0] - largest);
      weight = fmaf(part[1], factor, weight);
      sum = fmaf(part[2 + at], factor, sum);
    }
    *result = sum / weight;
  }
}

/* One key/value head and span, for all rows. */
template <typename E, int HEAD_DIM, int VEC, int LENGTH>
DEVICE_CALL void attention(struct worker *me, float *y, const float *q, const E *keys, const E *values, const int32_t *slots,
                           const int32_t *positions, int rows, const struct attention_shape &shape, const struct span &span) {
  const int group = shape.heads / shape.kv_heads;
  float *scores = (float *)work_space(), *sums = scores + GROUP * LENGTH;
  const size_t stride = (size_t)shape.spans * (HEAD_DIM + 2);
  for (int row = 0; row < rows; ++row) {
    if (positions[row] < 0) continue;
    const struct range seen = seen_by(positions[row], shape.window);
    const int begin = span.index * LENGTH;
    const struct range part = {begin > seen.begin ? begin : seen.begin, begin + LENGTH < seen.end ? begin + LENGTH : seen.end};
    if (part.begin >= part.end) continue;
    const size_t cache =
        ((size_t)slots[row] * (size_t)shape.kv_heads + (size_t)span.head) * (size_t)shape.context * HEAD_DIM;
    for (int h = 0; h < group; h += GROUP) {
      const int heads = group - h < GROUP ? group - h : GROUP, head = span.head * group + h;
      float *to = contribution(shape, HEAD_DIM, row, head, span.index);
      const float *query = q + ((size_t)row * (size_t)shape.heads + (size_t)head) * HEAD_DIM;
      compute_sync();
      span_scores<E, HEAD_DIM, VEC, LENGTH>(me, scores, query, keys + cache, part, heads, shape);
      compute_sync();
      span_weights<LENGTH>(me, scores, part.end - part.begin, heads, to, stride);
      compute_sync();
      span_values<E, HEAD_DIM, VEC, LENGTH>(me, sums, scores, values + cache, part, heads, to, stride);
    }
    if (me->thread == 0) me->bytes_read += (uint64_t)(2 * (part.end - part.begin) * HEAD_DIM) * sizeof(E);
  }
  compute_sync();
  if (me->thread == 0) {
    uint32_t *finished = &me->at.counters->heads[span.head];
    const bool is_last = add_acquire_release(finished, 1) + 1 == (uint32_t)span.count;
    if (is_last) *finished = 0;
    store_shared(shared_flag(FLAG_LAST), is_last);
  }
  compute_sync();
  if (load_shared(shared_flag(FLAG_LAST)) != 0) join_spans<HEAD_DIM, LENGTH>(me, y, positions, rows, span.head, shape);
}

