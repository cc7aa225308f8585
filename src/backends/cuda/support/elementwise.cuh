/* Operators that treat features alike (add, gates, soft cap), norms, RoPE, and the choice of rows. */
#pragma once
#include "engine.cuh"

DEVICE float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
DEVICE float add_two(float a, float b, float) { return a + b; }
DEVICE float silu_mul(float gate, float up, float) { return gate * sigmoid(gate) * up; }
/* x (1 + tanh(z)) / 2 = x sigmoid(2z). */
DEVICE float gelu_mul(float gate, float up, float) {
  const float inner = fmaf(gate * gate * gate, 0.044715f, gate);
  return gate * sigmoid(inner * 1.5957691216057308f) * up;
}
DEVICE float soft_cap(float x, float, float cap) { return cap * tanhf(x / cap); }

/* y = f(a, b) on features `part` of every row. */
template <float (*F)(float, float, float)>
DEVICE void elementwise(struct worker *me, float *y, const float *a, const float *b, int rows, int width, float parameter,
                        struct range part) {
  const int count = part.end - part.begin;
  for (int i = me->thread; i < rows * count; i += COMPUTE_THREADS) {
    const size_t at = (size_t)(i / count) * (size_t)width + (size_t)(part.begin + i % count);
    y[at] = F(a[at], b[at], parameter);
  }
}

#define f32_add elementwise<add_two>
#define f32_silu_mul elementwise<silu_mul>
#define f32_gelu_mul elementwise<gelu_mul>
#define f32_softcap elementwise<soft_cap>

DEVICE float warp_sum(float value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}

/* RMSNorm of groups of `n` features: y = x / sqrt(mean(x^2) + eps) * (weight + offset), groups `part` of every row. */
DEVICE_CALL void f32_rms_norm(struct worker *me, float *y, const float *x, const float *weight, int rows, int width, int n,
                              float eps, float offset, struct range part) {
  float *sums = (float *)work_space();
  const int groups = part.end - part.begin;
  for (int i = 0; i < rows * groups; ++i) {
    const size_t start = (size_t)(i / groups) * (size_t)width + (size_t)(part.begin + i % groups) * (size_t)n;
    float squares = 0.0f;
#pragma unroll 8
    for (int j = me->thread; j < n; j += COMPUTE_THREADS) squares = fmaf(x[start + j], x[start + j], squares);
    squares = warp_sum(squares);
    if (me->lane == 0) sums[i % 2 * COMPUTE_WARPS + me->warp] = squares;
    compute_sync();
    float sum = 0.0f;
    for (int warp = 0; warp < COMPUTE_WARPS; ++warp) sum += sums[i % 2 * COMPUTE_WARPS + warp];
    const float scale = 1.0f / sqrtf(sum / (float)n + eps);
#pragma unroll 8
    for (int j = me->thread; j < n; j += COMPUTE_THREADS) y[start + j] = x[start + j] * scale * (weight[j] + offset);
  }
}

/* table[rows, 2n]: cosines, then sines, of position * frequency. */
DEVICE void f32_rope_table(struct worker *me, float *table, const int32_t *positions, const float *frequencies, int rows,
                           int n) {
  for (int i = me->thread; i < rows * n; i += COMPUTE_THREADS) {
    const int row = i / n, pair = i % n;
    const double angle = (double)positions[row] * (double)frequencies[pair];
    const bool idle = positions[row] < 0;
    table[row * 2 * n + pair] = idle ? 0.0f : (float)cos(angle);
    table[row * 2 * n + n + pair] = idle ? 0.0f : (float)sin(angle);
  }
}

/* Rotates the pairs (i * step, i * step + distance), i < n, of heads `heads`; what is beyond 2n passes through. */
DEVICE void rope(struct worker *me, float *y, const float *x, const float *table, int rows, int width, int head_dim, int n,
                 int step, int distance, struct range heads) {
  const int pairs = head_dim - n, count = (heads.end - heads.begin) * pairs;
  for (int i = me->thread; i < rows * count; i += COMPUTE_THREADS) {
    const int row = i / count, head = heads.begin + i % count / pairs, pair = i % pairs;
    const size_t start = (size_t)row * (size_t)width + (size_t)head * (size_t)head_dim;
    if (pair >= n) {
      y[start + n + pair] = x[start + n + pair];
      continue;
    }
    const float c = table[row * 2 * n + pair], s = table[row * 2 * n + n + pair];
    const float a = x[start + pair * step], b = x[start + pair * step + distance];
    y[start + pair * step] = a * c - b * s;
    y[start + pair * step + distance] = fmaf(b, c, a * s);
  }
}

DEVICE void f32_rope_halves(struct worker *me, float *y, const float *x, const float *table, int rows, int width, int head_dim,
                            int n, struct range heads) {
  rope(me, y, x, table, rows, width, head_dim, n, 1, n, heads);
}
DEVICE void f32_rope_adjacent(struct worker *me, float *y, const float *x, const float *table, int rows, int width,
                              int head_dim, int n, struct range heads) {
  rope(me, y, x, table, rows, width, head_dim, n, 2, 1, heads);
}

/* y[samples, width] = rows index[s] of x. */
DEVICE void f32_gather_rows(struct worker *me, float *y, const float *x, const int32_t *index, int samples, int width) {
  for (int i = me->thread; i < samples * width; i += COMPUTE_THREADS)
    y[i] = x[(size_t)index[i / width] * (size_t)width + (size_t)(i % width)];
}
