/*
 * Comes behind the support code and host_run.h: one matrix or one lookup alone, as both sides of the generated kernels do it.
 */
#pragma once

struct linear_call {
  float *y;
  const float *x, *bias;
  const uint8_t *weight;
  const int32_t *tokens;
  int rows, in, out;
  struct range tiles;
  struct counters counters;
  struct mailbox mailbox;
  shim::list<uint8_t> own;
};

static struct worker begin_linear(const struct linear_call *call) {
  struct launch launch = {};
  launch.counters = const_cast<struct counters *>(&call->counters);
  launch.mailbox = const_cast<struct mailbox *>(&call->mailbox);
  launch.own = call->own.items;
  launch.rows = call->rows;
  struct worker me = begin_launch(launch);
  ring_init(&me);
  return me;
}

static struct range tiles_of(const struct worker *me, const struct linear_call *call) {
  const struct range part = part_of(me, call->tiles.end - call->tiles.begin);
  return {call->tiles.begin + part.begin, call->tiles.begin + part.end};
}

/* What generated code does before a matrix of this format. */
template <class FORMAT>
static typename FORMAT::input input_of(struct worker *me, const struct linear_call *call);
template <>
const float *input_of<f32_tiles>(struct worker *me, const struct linear_call *call) {
  return near_rows(me, call->x, (int64_t)call->rows * call->in);
}
template <>
const float *input_of<bf16_tiles>(struct worker *me, const struct linear_call *call) {
  return near_rows(me, call->x, (int64_t)call->rows * call->in);
}
static struct int8_rows int8_of(struct worker *me, const struct linear_call *call) {
  const struct int8_rows rows = int8_room(me, call->rows, call->in, 0);
  quantize_rows(me, rows, call->x, call->rows, call->in);
  return rows;
}
template <>
struct int8_rows input_of<q8_0_tiles>(struct worker *me, const struct linear_call *call) { return int8_of(me, call); }
template <>
struct int8_rows input_of<q4_0_tiles>(struct worker *me, const struct linear_call *call) { return int8_of(me, call); }

template <class FORMAT>
static void linear_body(const void *argument) {
  const struct linear_call *call = (const struct linear_call *)argument;
  struct worker me = begin_linear(call);
  const struct range tiles = tiles_of(&me, call);
  if (me.warp == COMPUTE_WARPS) {
    /* Twice, as what comes after it would be fetched ahead. */
    if (stream<FORMAT>(&me, call->weight, call->rows, call->in, tiles))
      (void)stream<FORMAT>(&me, call->weight, call->rows, call->in, tiles);
    ring_drain(&me);
    return;
  }
  const typename FORMAT::input x = input_of<FORMAT>(&me, call);
  compute_sync();
  linear<FORMAT>(&me, call->y, x, call->bias, call->rows, call->in, call->out, tiles);
  ring_stop(&me);
  end_launch(&me);
}

template <class FORMAT>
static void embed_body(const void *argument) {
  const struct linear_call *call = (const struct linear_call *)argument;
  struct worker me = begin_linear(call);
  if (me.warp == COMPUTE_WARPS) return;
  embed<FORMAT>(&me, call->y, call->tokens, call->weight, call->rows, call->in, 1.0f, part_of(&me, call->in));
}

static int run_linear(void (*body)(const void *), struct linear_call *call, int blocks, uint64_t seed) {
  call->own.make((size_t)blocks * OWN_BYTES + 64);
  char why[1024] = "";
  const int outcome = shim::run_grid(body, call, blocks, BLOCK_THREADS, SHARED_BYTES, seed, shim::NOTHING, {}, why, sizeof why);
  if (outcome != 0) fprintf(stderr, "outcome %d: %s\n", outcome, why);
  return outcome;
}

#define TEST_FORMAT(dtype)                                                                                              \
  extern "C" __attribute__((visibility("default"))) int linear_##dtype(                                                 \
      float *y, const float *x, const uint8_t *weight, const float *bias, int rows, int in, int out, int first, int last, \
      int blocks) {                                                                                                     \
    struct linear_call call = {};                                                                                       \
    call.y = y, call.x = x, call.weight = weight, call.bias = bias;                                                     \
    call.rows = rows, call.in = in, call.out = out, call.tiles = {first, last};                                         \
    return run_linear(linear_body<dtype##_tiles>, &call, blocks, (uint64_t)(rows + in + out));                          \
  }                                                                                                                     \
  extern "C" __attribute__((visibility("default"))) int embed_##dtype(float *y, const int32_t *tokens,                  \
                                                                      const uint8_t *table, int rows, int width) {      \
    struct linear_call call = {};                                                                                       \
    call.y = y, call.tokens = tokens, call.weight = table, call.rows = rows, call.in = width;                           \
    return run_linear(embed_body<dtype##_tiles>, &call, 2, 1);                                                          \
  }

TEST_FORMAT(f32)
TEST_FORMAT(bf16)
TEST_FORMAT(q8_0)
TEST_FORMAT(q4_0)
