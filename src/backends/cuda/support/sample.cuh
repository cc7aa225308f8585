/*
 * sample and advance: the choice of the next token, and the stop test, by one block. The meaning is that of ops/sample.ts:
 * biases and mask, penalties, temperature, top-k, top-p, min-p, then one draw of Philox4x32-10 with the seed as key and
 * the position as counter.
 *
 * Nothing is sorted. Weights exp(l - max) are integers of 2^-40, so that sums are exact in any order; the least logit that
 * top-k or top-p keeps is found digit by digit (eight bits at a time) from histograms of counts or weights.
 */
#pragma once
#include "engine.cuh"

#define SETTINGS 10
#define BIASED_TOKENS 300
#define STOP_TOKENS 16
#define DIGITS 256

DEVICE uint32_t philox_first(uint32_t counter, uint32_t key0, uint32_t key1) {
  uint32_t a = counter, b = 0, c = 0, d = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = (uint64_t)a * 0xd2511f53u, right = (uint64_t)c * 0xcd9e8d57u;
    const uint32_t next_a = (uint32_t)(right >> 32) ^ b ^ key0, next_c = (uint32_t)(left >> 32) ^ d ^ key1;
    b = (uint32_t)right;
    d = (uint32_t)left;
    a = next_a;
    c = next_c;
    key0 += 0x9e3779b9u;
    key1 += 0xbb67ae85u;
  }
  return a;
}

/* Larger logits have larger keys; NaN has 0, and is never chosen. */
DEVICE uint32_t key_of(float logit) {
  if (logit != logit) return 0;
  const uint32_t bits = float_to_bits(logit == 0.0f ? 0.0f : logit);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* In shared memory, for one choice. */
struct choice {
  uint64_t sums[DIGITS];
  uint32_t largest[COMPUTE_WARPS], ids[COMPUTE_WARPS];
  uint64_t partial[COMPUTE_THREADS];
  uint64_t wanted;
  uint32_t key;
  int32_t token;
};
DEVICE struct choice *choice_space() { return (struct choice *)work_space(); }

DEVICE uint64_t weight_of(float logit, float max) {
  return logit > -INFINITY_F ? (uint64_t)(expf(logit - max) * 1099511627776.0f) : 0;
}

/* A logit's key and its id; of two, the one that is chosen is the better. */
struct found {
  uint32_t key, id;
};
DEVICE struct found better(struct found a, struct found b) {
  return b.key > a.key || (b.key == a.key && b.id < a.id) ? b : a;
}

/* The smallest id with the largest logit of ids `part`, for all threads; key 0 where there is none. */
DEVICE struct found best_of(struct worker *me, const float *logits, struct range part) {
  struct choice *c = choice_space();
  struct found best = {0, 0};
#pragma unroll 8
  for (int i = part.begin + me->thread; i < part.end; i += COMPUTE_THREADS) {
    const uint32_t key = key_of(logits[i]);
    if (key > best.key) best = {key, (uint32_t)i};
  }
  for (int mask = 16; mask > 0; mask /= 2) {
    const uint32_t key = float_to_bits(shuffle_xor(bits_to_float(best.key), mask));
    const uint32_t id = float_to_bits(shuffle_xor(bits_to_float(best.id), mask));
    best = better(best, {key, id});
  }
  compute_sync();
  if (me->lane == 0) {
    c->largest[me->warp] = best.key;
    c->ids[me->warp] = best.id;
  }
  compute_sync();
  for (int warp = 0; warp < COMPUTE_WARPS; ++warp) best = better(best, {c->largest[warp], c->ids[warp]});
  return best;
}

/* The best of each block's part of the logits: found[samples][blocks]. */
DEVICE void f32_best_of_parts(struct worker *me, struct found *found, const float *logits, int samples, int vocab) {
  for (int s = 0; s < samples; ++s) {
    const struct found best = best_of(me, logits + (size_t)s * (size_t)vocab, part_of(me, vocab));
    if (me->thread == 0) found[s * me->blocks + me->block] = best;
  }
}

/* The best of all, once all blocks have handed off. */
DEVICE int32_t best_of_parts(const struct worker *me, const struct found *found) {
  struct found best = {0, 0};
  for (int block = 0; block < me->blocks; ++block) best = better(best, found[block]);
  return (int32_t)best.id;
}

/* Every thread's own part of the vocabulary, in the order of ids. */
DEVICE struct range ids_of(const struct worker *me, int vocab) {
  return {(int)((int64_t)vocab * me->thread / COMPUTE_THREADS), (int)((int64_t)vocab * (me->thread + 1) / COMPUTE_THREADS)};
}

/* Sum over the threads before this one; `all` becomes the sum of all. */
DEVICE uint64_t sum_before(struct worker *me, uint64_t mine, uint64_t *all) {
  struct choice *c = choice_space();
  compute_sync();
  c->partial[me->thread] = mine;
  compute_sync();
  uint64_t before = 0, total = 0;
  for (int i = 0; i < COMPUTE_THREADS; ++i) {
    if (i == me->thread) before = total;
    total += c->partial[i];
  }
  *all = total;
  return before;
}

/* What a token counts for: itself, or its weight. */
DEVICE uint64_t measure(float logit, float max, bool by_weight) { return by_weight ? weight_of(logit, max) : 1; }

/*
 * The key at which tokens from the largest on, of keys of at least `least`, reach `wanted` (counted, or weighed); *rest is
 * what is wanted of the tokens that have this very key.
 */
DEVICE uint32_t key_that_reaches(struct worker *me, const float *logits, int vocab, float max, uint32_t least, bool by_weight,
                                 uint64_t wanted, uint64_t *rest) {
  struct choice *c = choice_space();
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    compute_sync();
    for (int i = me->thread; i < DIGITS; i += COMPUTE_THREADS) c->sums[i] = 0;
    compute_sync();
    for (int i = me->thread; i < vocab; i += COMPUTE_THREADS) {
      const uint32_t key = key_of(logits[i]);
      if (key == 0 || key < least || (shift < 24 && key >> (shift + 8) != prefix >> (shift + 8))) continue;
      const uint64_t counts = measure(logits[i], max, by_weight);
      if (counts != 0) add_shared(&c->sums[key >> shift & 255], counts);
    }
    compute_sync();
    if (me->thread == 0) {
      int digit = 255;
      uint64_t left = wanted;
      while (digit > 0 && c->sums[digit] < left) left -= c->sums[digit--];
      c->key = prefix | (uint32_t)digit << shift;
      c->wanted = left;
    }
    compute_sync();
    prefix = c->key;
    wanted = c->wanted;
  }
  *rest = wanted;
  return prefix;
}

/* Which tokens may be drawn: those with larger keys, and of those with this key the first `ties` in the order of ids. */
struct limit {
  uint32_t key;
  uint64_t ties;
  uint64_t least_weight;
};

DEVICE bool keeps(const struct limit &limit, uint32_t key, uint64_t weight, uint64_t *ties) {
  if (key == 0 || key < limit.key) return false;
  if (key == limit.key && (*ties)++ >= limit.ties) return false;
  return weight >= limit.least_weight;
}

/* Tokens with the key of the limit before this thread's part. */
DEVICE uint64_t ties_before(struct worker *me, const float *logits, int vocab, const struct limit &limit) {
  const struct range ids = ids_of(me, vocab);
  uint64_t mine = 0, all;
  for (int i = ids.begin; i < ids.end; ++i) mine += key_of(logits[i]) == limit.key;
  return sum_before(me, mine, &all);
}

DEVICE uint64_t kept_weight(struct worker *me, const float *logits, int vocab, float max, const struct limit &limit,
                            uint64_t ties, uint64_t *before) {
  const struct range ids = ids_of(me, vocab);
  uint64_t mine = 0, all;
  for (int i = ids.begin; i < ids.end; ++i) {
    const uint64_t weight = weight_of(logits[i], max);
    if (keeps(limit, key_of(logits[i]), weight, &ties)) mine += weight;
  }
  *before = sum_before(me, mine, &all);
  return all;
}

/* The first id at which the running sum exceeds `uniform` of the total. */
DEVICE int32_t draw(struct worker *me, const float *logits, int vocab, float max, const struct limit &limit, double uniform,
                    int32_t otherwise) {
  struct choice *c = choice_space();
  uint64_t ties = ties_before(me, logits, vocab, limit), before;
  const uint64_t total = kept_weight(me, logits, vocab, max, limit, ties, &before);
  const double target = uniform * (double)total;
  if (me->thread == 0) c->token = otherwise;
  compute_sync();
  const struct range ids = ids_of(me, vocab);
  for (int i = ids.begin; i < ids.end && (double)before <= target; ++i) {
    const uint64_t weight = weight_of(logits[i], max);
    if (!keeps(limit, key_of(logits[i]), weight, &ties)) continue;
    before += weight;
    if ((double)before > target) c->token = i;
  }
  compute_sync();
  return c->token;
}

/* The weight that the nucleus must reach, and the limit that keeps it. */
DEVICE struct limit nucleus(struct worker *me, const float *logits, int vocab, float max, const struct limit &top_k, float p) {
  uint64_t before, rest;
  const uint64_t total = kept_weight(me, logits, vocab, max, top_k, ties_before(me, logits, vocab, top_k), &before);
  uint64_t enough = (uint64_t)ceil((double)p * (double)total);
  if (enough < 1) enough = 1;
  struct limit limit = top_k;
  limit.key = key_that_reaches(me, logits, vocab, max, top_k.key, true, enough, &rest);
  const uint64_t each = weight_of(bits_to_float(limit.key & 0x80000000u ? limit.key & 0x7fffffffu : ~limit.key), max);
  const uint64_t ties = each == 0 ? rest : (rest + each - 1) / each;
  limit.ties = limit.key == top_k.key && ties > top_k.ties ? top_k.ties : ties;
  return limit;
}

/* What the caller says of single tokens; of one sample. Settings say how much of it there is. */
struct edits {
  const int32_t *biased;
  const float *biases;
  const int32_t *allowed;
};

DEVICE struct edits edits_of(const struct edits &all, int sample, int vocab) {
  if (all.biased == nullptr) return all;
  return {all.biased + sample * BIASED_TOKENS, all.biases + sample * BIASED_TOKENS,
          all.allowed + (size_t)sample * (size_t)((vocab + 31) / 32)};
}

DEVICE bool is_masked(const struct edits &edits, const float *settings, int id) {
  return settings[9] != 0.0f && ((uint32_t)edits.allowed[id >> 5] >> (id & 31) & 1) == 0;
}

DEVICE float edited_logit(const float *logits, const struct edits &edits, const float *settings, int id) {
  if (is_masked(edits, settings, id)) return -INFINITY_F;
  for (int i = 0; i < (int)settings[8]; ++i)
    if (edits.biased[i] == id) return logits[id] + edits.biases[i];
  return logits[id];
}

DEVICE bool penalizes(const float *settings) {
  return settings[4] != 1.0f || settings[5] != 0.0f || settings[6] != 0.0f;
}

/*
 * Changes the logits of tokens that were there before, whoever finds them how often. Presence and frequency count only the
 * tokens that were made; `counts` is room for a count of each token, of which only those are set to 0 first.
 */
DEVICE void penalize(struct worker *me, float *adjusted, uint32_t *counts, const float *logits, const struct edits &edits,
                     int vocab, const int32_t *history, int count, const float *settings) {
  const float repetition = settings[4], presence = settings[5], frequency = settings[6];
  for (int i = me->thread; i < count; i += COMPUTE_THREADS) {
    const int32_t id = history[i];
    if (id < 0 || id >= vocab) continue;
    if (repetition != 1.0f) {
      const float logit = edited_logit(logits, edits, settings, id);
      store_same(adjusted + id, logit > 0.0f ? logit / repetition : logit * repetition);
    }
    store_count(counts + id, 0);
  }
  compute_sync();
  if (presence == 0.0f && frequency == 0.0f) return;
  const int first = (int)settings[7];
  for (int i = first + me->thread; i < count; i += COMPUTE_THREADS)
    if (history[i] >= 0 && history[i] < vocab) add_count(counts + history[i]);
  compute_sync();
  for (int i = first + me->thread; i < count; i += COMPUTE_THREADS) {
    const int32_t id = history[i];
    const uint32_t times = id >= 0 && id < vocab ? take_count(counts + id) : 0;
    if (times > 0) adjusted[id] -= presence + frequency * (float)times;
  }
  compute_sync();
}

DEVICE_CALL int32_t choose(struct worker *me, const struct found *found, float *adjusted, uint32_t *counts, const float *logits, const struct edits &edits, int vocab,
                           const int32_t *history, int count, const float *settings, const int32_t *seed, int position) {
  const float temperature = settings[0], top_p = settings[2], min_p = settings[3];
  const bool penalized = penalizes(settings), edited = settings[8] > 0.0f || settings[9] != 0.0f;
  const int top_k = (int)settings[1];
  if (!penalized && !edited && temperature <= 0.0f) return best_of_parts(me, found);
  for (int i = me->thread; i < vocab; i += COMPUTE_THREADS) adjusted[i] = is_masked(edits, settings, i) ? -INFINITY_F : logits[i];
  compute_sync();
  for (int i = me->thread; i < (int)settings[8]; i += COMPUTE_THREADS) adjusted[edits.biased[i]] += edits.biases[i];
  compute_sync();
  if (penalized) penalize(me, adjusted, counts, logits, edits, vocab, history, count, settings);
  const int32_t best = (int32_t)best_of(me, adjusted, {0, vocab}).id;
  if (temperature <= 0.0f) return best;
  compute_sync();
  for (int i = me->thread; i < vocab; i += COMPUTE_THREADS) adjusted[i] /= temperature;
  compute_sync();
  const float max = adjusted[best];
  /* Nothing can be weighed against an infinity. */
  if (!(max > -INFINITY_F && max < INFINITY_F)) return best;
  struct limit limit = {1, ~(uint64_t)0, 0};
  if (top_k > 0 && top_k < vocab) {
    uint64_t rest;
    limit.key = key_that_reaches(me, adjusted, vocab, max, 1, false, (uint64_t)top_k, &rest);
    limit.ties = rest;
  }
  if (top_p < 1.0f) limit = nucleus(me, adjusted, vocab, max, limit, top_p);
  if (min_p > 0.0f) limit.least_weight = (uint64_t)((double)min_p * (double)weight_of(max, max));
  const double uniform = philox_first((uint32_t)position, (uint32_t)seed[0], (uint32_t)seed[1]) / 4294967296.0;
  return draw(me, adjusted, vocab, max, limit, uniform, best);
}

/* `adjusted` and `counts` are room for the vocabulary of one sample. */
DEVICE_CALL void f32_sample(struct worker *me, const struct found *found, int32_t *token, const float *logits, const int32_t *index, const int32_t *slots,
                            const int32_t *positions, const int32_t *history, const float *settings, const int32_t *seeds,
                            const int32_t *biased, const float *biases, const int32_t *allowed, int samples, int vocab, int context, float *adjusted, uint32_t *counts) {
  for (int s = 0; s < samples; ++s) {
    const int row = index[s], position = positions[row];
    const int32_t chosen = position < 0 ? 0
                                        : choose(me, found + s * me->blocks, adjusted, counts, logits + (size_t)s * (size_t)vocab,
                                                 edits_of({biased, biases, allowed}, s, vocab), vocab,
                                                 history + (size_t)slots[row] * (size_t)context, position + 1,
                                                 settings + s * SETTINGS, seeds + 2 * s, position);
    if (me->thread == 0) token[s] = chosen;
    compute_sync();
  }
}

DEVICE void i32_append_token(struct worker *me, int32_t *history, const int32_t *tokens, const int32_t *slots,
                             const int32_t *positions, int rows, int context) {
  for (int row = me->thread; row < rows; row += COMPUTE_THREADS)
    if (positions[row] >= 0) history[(size_t)slots[row] * (size_t)context + (size_t)positions[row]] = tokens[row];
}

DEVICE void i32_advance(struct worker *me, int32_t *next_tokens, int32_t *next_positions, int32_t *next_remaining,
                        int32_t *next_done, int32_t *emitted, const int32_t *token, const int32_t *index,
                        const int32_t *positions, const int32_t *remaining, const int32_t *done, const int32_t *stop_tokens,
                        int samples) {
  for (int s = me->thread; s < samples; s += COMPUTE_THREADS) {
    const bool was_done = done[s] != 0;
    bool stops = remaining[s] <= 1;
    for (int i = 0; i < STOP_TOKENS; ++i) stops = stops || (stop_tokens[i] >= 0 && stop_tokens[i] == token[s]);
    emitted[s] = was_done ? -1 : token[s];
    next_remaining[s] = was_done ? remaining[s] : remaining[s] - 1;
    next_done[s] = was_done || stops;
    next_tokens[s] = was_done ? 0 : token[s];
    next_positions[s] = was_done || stops ? -1 : positions[index[s]] + 1;
  }
}
