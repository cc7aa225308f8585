/*
 * sample and advance: the choice of the next token, and the stop test. The meaning is that of ops/sample.ts: biases and
 * mask, penalties, temperature, top-k, top-p, min-p, then one draw of Philox4x32-10 with the seed as key and the position
 * as counter.
 * Weights are float32 here (float64 there), so that a draw differs at most where two tokens' borders meet.
 */
#pragma once
#include <math.h>
#include "engine.h"
#include "vector_math.h"

#define SETTINGS 10
#define BIASED_TOKENS 300
#define STOP_TOKENS 16
/* Weights are summed in blocks, so that the draw first finds its block. */
#define WEIGHT_BLOCK 256

struct candidate {
  float logit;
  int32_t id;
};

/* A worker's own memory for one choice; a vocabulary of each. */
struct sampler {
  int vocab;
  float *logits;
  float *weights;
  struct candidate *candidates;
  uint8_t *seen;
};

static inline uint64_t sampler_bytes_per_token(void) { return 2 * sizeof(float) + sizeof(struct candidate) + 1; }

static inline struct sampler sampler_at(struct worker *me, uint64_t offset, int vocab) {
  uint8_t *memory = own(me, offset);
  const size_t n = (size_t)vocab;
  return (struct sampler){vocab, (float *)memory, (float *)memory + n, (struct candidate *)((float *)memory + 2 * n),
                          memory + n * (2 * sizeof(float) + sizeof(struct candidate))};
}

static uint32_t philox_first(uint32_t counter, uint32_t key0, uint32_t key1) {
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

/* The smallest id with the largest logit; NaN is never chosen. */
static int32_t largest_id(const float *logits, int vocab) {
  float best = -INFINITY;
  int32_t id = -1;
  int i = 0;
  for (; i + 64 <= vocab; i += 64) {
    /* The new value goes first: where it is NaN, the maximum is the second. */
    v16 top = v16_set(-INFINITY);
    for (int j = i; j < i + 64; j += 16) top = v16_max(v16_load(logits + j), top);
    if (v16_largest(top) <= best && id >= 0) continue;
    for (int j = i; j < i + 64; ++j)
      if (logits[j] > best || (id < 0 && logits[j] == best)) best = logits[id = j];
  }
  for (; i < vocab; ++i)
    if (logits[i] > best || (id < 0 && logits[i] == best)) best = logits[id = i];
  return id < 0 ? 0 : id;
}

/* What the caller says of single tokens; of one sample. */
struct edits {
  const int32_t *biased;
  const float *biases;
  const int32_t *allowed;
};

static inline struct edits edits_of(const struct edits *all, int sample, int vocab) {
  if (all->biased == NULL) return *all;
  return (struct edits){all->biased + sample * BIASED_TOKENS, all->biases + sample * BIASED_TOKENS,
                        all->allowed + (size_t)sample * (size_t)((vocab + 31) / 32)};
}

static inline bool edits_logits(const float *settings) { return settings[8] > 0.0f || settings[9] != 0.0f; }

static void edit(struct sampler *s, const struct edits *edits, const float *settings) {
  for (int i = 0; i < (int)settings[8]; ++i) s->logits[edits->biased[i]] += edits->biases[i];
  if (settings[9] == 0.0f) return;
  for (int id = 0; id < s->vocab; ++id)
    if (((uint32_t)edits->allowed[id >> 5] >> (id & 31) & 1) == 0) s->logits[id] = -INFINITY;
}

static inline bool penalizes(const float *settings) {
  return settings[4] != 1.0f || settings[5] != 0.0f || settings[6] != 0.0f;
}

enum { SEEN = 1, SEEN_MADE = 2 };

/* `seen` may hold anything before: other kernels use the same memory. */
static void penalize(struct sampler *s, const int32_t *history, int count, const float *settings) {
  const float repetition = settings[4], presence = settings[5], frequency = settings[6];
  for (int i = 0; i < count; ++i)
    if (history[i] >= 0 && history[i] < s->vocab) s->seen[history[i]] = 0;
  for (int i = 0; i < count && repetition != 1.0f; ++i) {
    const int32_t id = history[i];
    if (id < 0 || id >= s->vocab || s->seen[id] & SEEN) continue;
    s->seen[id] |= SEEN;
    s->logits[id] = s->logits[id] > 0.0f ? s->logits[id] / repetition : s->logits[id] * repetition;
  }
  for (int i = (int)settings[7]; i < count && (presence != 0.0f || frequency != 0.0f); ++i) {
    const int32_t id = history[i];
    if (id < 0 || id >= s->vocab) continue;
    if (!(s->seen[id] & SEEN_MADE)) s->logits[id] -= presence;
    s->seen[id] |= SEEN_MADE;
    s->logits[id] -= frequency;
  }
}

static int better_first(const void *left, const void *right) {
  const struct candidate *a = left, *b = right;
  if (a->logit != b->logit) return a->logit > b->logit ? -1 : 1;
  return a->id < b->id ? -1 : a->id > b->id;
}

static int by_id(const void *left, const void *right) {
  const struct candidate *a = left, *b = right;
  return a->id < b->id ? -1 : a->id > b->id;
}

/* Restores the heap whose root is its worst candidate. */
static void sift_down(struct candidate *heap, int count, int root) {
  for (;;) {
    int worst = root;
    for (int child = 2 * root + 1; child <= 2 * root + 2 && child < count; ++child)
      if (better_first(&heap[child], &heap[worst]) > 0) worst = child;
    if (worst == root) return;
    const struct candidate moved = heap[root];
    heap[root] = heap[worst];
    heap[worst] = moved;
    root = worst;
  }
}

/* The k best, in no order. */
static int keep_top_k(struct sampler *s, int k) {
  int count = 0;
  for (int id = 0; id < s->vocab; ++id) {
    const struct candidate candidate = {s->logits[id], id};
    if (candidate.logit != candidate.logit) continue;
    if (count < k) {
      s->candidates[count++] = candidate;
      if (count == k)
        for (int root = k / 2; root >= 0; --root) sift_down(s->candidates, k, root);
    } else if (better_first(&candidate, &s->candidates[0]) < 0) {
      s->candidates[0] = candidate;
      sift_down(s->candidates, k, 0);
    }
  }
  return count;
}

/* The shortest prefix of the sorted candidates whose weights reach `enough`; `count` where they do not. */
static int nucleus(const struct sampler *s, int count, double enough, bool *reached) {
  double sum = 0;
  for (int i = 0; i < count; ++i) {
    sum += s->weights[s->candidates[i].id];
    if (sum >= enough) {
      *reached = true;
      return i + 1;
    }
  }
  *reached = false;
  return count;
}

/* Sorting a whole vocabulary takes longer than a layer: the likely tokens are sorted first, more only where needed. */
static int keep_top_p(struct sampler *s, float max, double enough) {
  for (float depth = 4.0f;; depth *= 4.0f) {
    const bool all = depth > 256.0f;
    int count = 0;
    for (int id = 0; id < s->vocab; ++id)
      if (s->logits[id] >= max - depth || (all && s->logits[id] == s->logits[id]))
        s->candidates[count++] = (struct candidate){s->logits[id], id};
    qsort(s->candidates, (size_t)count, sizeof *s->candidates, better_first);
    bool reached;
    const int kept = nucleus(s, count, enough, &reached);
    if (reached || all) return kept;
  }
}

/* Weights exp(l - max) of all tokens, 0 for NaN and -infinity, and their sum. */
static double weigh(struct sampler *s, float max) {
  double total = 0;
  for (int start = 0; start < s->vocab; start += WEIGHT_BLOCK) {
    const int end = start + WEIGHT_BLOCK < s->vocab ? start + WEIGHT_BLOCK : s->vocab;
    float sum = 0;
    for (int i = start; i < end; i += 16) {
      const int n = end - i < 16 ? end - i : 16;
      float lanes[16];
      v16_store(lanes, v16_exp(v16_sub(v16_load_part(s->logits + i, n), v16_set(max))));
      for (int j = 0; j < n; ++j) {
        s->weights[i + j] = s->logits[i + j] > -INFINITY ? lanes[j] : 0.0f;
        sum += s->weights[i + j];
      }
    }
    total += sum;
  }
  return total;
}

static int32_t pick_any(const struct sampler *s, double target) {
  double before = 0;
  int32_t last = 0;
  for (int start = 0; start < s->vocab; start += WEIGHT_BLOCK) {
    const int end = start + WEIGHT_BLOCK < s->vocab ? start + WEIGHT_BLOCK : s->vocab;
    float sum = 0;
    for (int i = start; i < end; ++i) sum += s->weights[i];
    if (before + sum > target) {
      double at = before;
      for (int i = start; i < end; ++i) {
        at += s->weights[i];
        if (s->weights[i] > 0.0f) last = i;
        if (at > target) return i;
      }
    } else {
      for (int i = start; i < end; ++i)
        if (s->weights[i] > 0.0f) last = i;
    }
    before += sum;
  }
  return last;
}

static int32_t pick_candidate(struct sampler *s, int count, double uniform) {
  qsort(s->candidates, (size_t)count, sizeof *s->candidates, by_id);
  double total = 0, at = 0;
  for (int i = 0; i < count; ++i) total += s->weights[s->candidates[i].id];
  for (int i = 0; i < count; ++i) {
    at += s->weights[s->candidates[i].id];
    if (at > uniform * total) return s->candidates[i].id;
  }
  return s->candidates[count - 1].id;
}

static int32_t choose(struct sampler *s, const float *logits, const struct edits *edits, const int32_t *history,
                      int count, const float *settings, const int32_t *seed, int position) {
  const float temperature = settings[0], top_p = settings[2], min_p = settings[3];
  const bool penalized = penalizes(settings), edited = edits_logits(settings);
  const int top_k = (int)settings[1];
  if (!penalized && !edited && temperature <= 0.0f) return largest_id(logits, s->vocab);
  memcpy(s->logits, logits, (size_t)s->vocab * sizeof *logits);
  if (edited) edit(s, edits, settings);
  if (penalized) penalize(s, history, count, settings);
  const int32_t best = largest_id(s->logits, s->vocab);
  if (temperature <= 0.0f) return best;
  for (int i = 0; i < s->vocab; ++i) s->logits[i] /= temperature;
  const float max = s->logits[best];
  /* Nothing can be weighed against an infinity. */
  if (!isfinite(max)) return best;
  const double total = weigh(s, max);
  const double uniform = philox_first((uint32_t)position, (uint32_t)seed[0], (uint32_t)seed[1]) / 4294967296.0;
  const bool limited = top_k > 0 && top_k < s->vocab;
  if (!limited && top_p >= 1.0f && min_p <= 0.0f) return pick_any(s, uniform * total);

  int kept;
  if (limited) {
    kept = keep_top_k(s, top_k);
    if (top_p < 1.0f) {
      qsort(s->candidates, (size_t)kept, sizeof *s->candidates, better_first);
      double sum = 0;
      for (int i = 0; i < kept; ++i) sum += s->weights[s->candidates[i].id];
      bool reached;
      kept = nucleus(s, kept, (double)top_p * sum, &reached);
    }
  } else {
    kept = keep_top_p(s, max, top_p < 1.0f ? (double)top_p * total : INFINITY);
  }
  if (min_p > 0.0f) {
    const double least = (double)min_p * (double)s->weights[best];
    int likely = 0;
    for (int i = 0; i < kept; ++i)
      if (s->weights[s->candidates[i].id] >= least) s->candidates[likely++] = s->candidates[i];
    kept = likely;
  }
  return kept == 0 ? best : pick_candidate(s, kept, uniform);
}

static __attribute__((noinline, unused)) void f32_sample(struct worker *me, int32_t *token, const float *logits,
                                                         const int32_t *index, const int32_t *slots,
                                                         const int32_t *positions, const int32_t *history,
                                                         const float *settings, const int32_t *seeds,
                                                         const int32_t *biased, const float *biases,
                                                         const int32_t *allowed, int samples, int vocab, int context,
                                                         uint64_t memory) {
  struct sampler sampler = sampler_at(me, memory, vocab);
  const struct edits all = {biased, biases, allowed};
  for (int s = 0; s < samples; ++s) {
    const int position = positions[index[s]];
    const struct edits own = edits_of(&all, s, vocab);
    token[s] = position < 0 ? 0
                            : choose(&sampler, logits + (size_t)s * (size_t)vocab, &own,
                                     history + (size_t)slots[index[s]] * (size_t)context, position + 1,
                                     settings + s * SETTINGS, seeds + 2 * s, position);
  }
}

static __attribute__((noinline, unused)) void i32_append_token(int32_t *history, const int32_t *tokens,
                                                               const int32_t *slots, const int32_t *positions, int rows,
                                                               int context) {
  for (int row = 0; row < rows; ++row)
    if (positions[row] >= 0) history[(size_t)slots[row] * (size_t)context + (size_t)positions[row]] = tokens[row];
}

static __attribute__((noinline, unused)) void i32_advance(int32_t *next_tokens, int32_t *next_positions,
                                                          int32_t *next_remaining, int32_t *next_done, int32_t *emitted,
                                                          const int32_t *token, const int32_t *index,
                                                          const int32_t *positions, const int32_t *remaining,
                                                          const int32_t *done, const int32_t *stop_tokens, int samples) {
  for (int s = 0; s < samples; ++s) {
    const bool was_done = done[s] != 0;
    bool stops = remaining[s] <= 1;
    for (int i = 0; i < STOP_TOKENS; ++i) stops = stops || (stop_tokens[i] >= 0 && stop_tokens[i] == token[s]);
    emitted[s] = was_done ? -1 : token[s];
    next_remaining[s] = was_done ? remaining[s] : remaining[s] - 1;
    next_done[s] = was_done || stops;
    next_tokens[s] = was_done ? 0 : token[s];
    next_positions[s] = next_done[s] ? -1 : positions[index[s]] + 1;
  }
}
