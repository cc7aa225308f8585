/*
 * The machine under the kernels. One block per multiprocessor stays from the first stage of a call to the last. The work of
 * a stage is divided among the blocks; a stage ends with a hand-off: a block counts itself when its part is written, and
 * waits for the count of all before it reads. Weights depend on nobody, so that one warp of every block fetches them far
 * ahead into a ring (ring.cuh) while the others wait.
 *
 * A wait that takes longer than WATCHDOG_NS is a fault of ours: the block writes down what it waited for, where the host
 * finds it, and ends the kernel.
 */
#pragma once
#include "device.cuh"

#define MAX_KV_HEADS 256
#define WATCHDOG_NS 10000000000ull
/* What a block waits for that is at no hand-off: weights, in slot `arrived` of the `expected` slots of its ring. */
#define RING_STAGE -1
#define TROUBLE_TOLD 2

/* What the blocks tell each other; zero before the first launch. */
struct counters {
  /* Hand-offs of launch n are counted in [n % 3]; meanwhile [(n + 1) % 3] is made zero, which nobody uses any more. */
  uint32_t arrivals[3];
  /* Whether the host wanted the loop over tokens to end, as of iteration i in [i % 2]. */
  uint32_t aborted[2];
  /* Blocks that have finished their part of the attention of a head. */
  uint32_t heads[MAX_KV_HEADS];
  uint32_t padding;
  uint64_t hand_offs, bytes_read, wait_ns;
};

/* Memory of the host that a running kernel reads and writes. */
struct mailbox {
  int32_t aborted;
  /* Not 0: somebody waited too long. TROUBLE_TOLD: the next four say who, for what, and how many had come. */
  int32_t trouble;
  int32_t block, stage, arrived, expected;
};

/* What one launch is told. `arguments` is where those of the call begin in the kernel's table. */
struct launch {
  uint8_t *arena;
  const uint8_t *weights;
  uint8_t *own;
  struct counters *counters;
  struct mailbox *mailbox;
  /* Memory of the host for the tokens of a response, [iteration][samples]: all less than 0 before the launch. */
  int32_t *tokens;
  int32_t rows, samples;
  uint32_t number, arguments;
};

/* One thread's view of its block. */
struct worker {
  struct launch at;
  int thread, warp, lane, block, blocks;
  int rows, samples;
  /* Hand-offs so far, and the ring: the slot that is next and the parity of its barriers. */
  uint32_t hand_offs;
  int slot;
  uint32_t parity;
  bool wrapped;
  /* Shared memory for rows that this block has made: bytes taken in this stage. */
  int rows_used;
  /* Tiles so far, whose partial sums alternate between two places. */
  int tiles;
  bool last_iteration;
  uint64_t bytes_read, wait_ns;
};

struct range {
  int begin, end;
};

/* Shared memory: barriers, flags, work space of one operator, rows, ring. A light kernel has what a norm wants of it. */
#define FLAGS_AT (2 * RING_SLOTS * 8)
#define WORK_AT ((FLAGS_AT + 16 + 127) / 128 * 128)
#define ROWS_AT (WORK_AT + WORK_BYTES)
#define RING_AT (ROWS_AT + ROWS_BYTES)
#define SHARED_BYTES (RING_AT + RING_SLOTS * SLICE_BYTES)
#define LIGHT_BYTES (WORK_AT + 2 * COMPUTE_WARPS * 4)
#define FLAG_STOP 0
#define FLAG_LAST 1

DEVICE uint32_t *shared_flag(int flag) { return (uint32_t *)(shared_memory() + FLAGS_AT) + flag; }
DEVICE void *work_space() { return shared_memory() + WORK_AT; }

DEVICE struct worker begin_launch(const struct launch &launch) {
  /* At once: the next kernel's blocks come when all of this one's are there, so that they take nobody's place. */
  launch_dependents();
  struct worker me = {};
  me.at = launch;
  me.thread = thread_index();
  me.warp = me.thread / 32;
  me.lane = me.thread % 32;
  me.block = block_index();
  me.blocks = block_count();
  me.rows = launch.rows;
  me.samples = launch.samples;
  return me;
}

/*
 * The compute warps begin here, the one that fetches weights does not: weights were there before any kernel was. Everything
 * else may have been written by the kernel before this one, or still be read by it.
 */
DEVICE void begin_compute(struct worker *me) {
  wait_for_prerequisites();
  if (me->block == 0 && me->thread == 0) me->at.counters->arrivals[(me->at.number + 1) % 3] = 0;
}

DEVICE void end_launch(struct worker *me) {
  if (me->bytes_read != 0) add_counter(&me->at.counters->bytes_read, me->bytes_read);
  if (me->thread != 0) return;
  if (me->wait_ns != 0) add_counter(&me->at.counters->wait_ns, me->wait_ns);
  if (me->block == 0) add_counter(&me->at.counters->hand_offs, me->hand_offs);
}

/* An argument is an offset into the arena, or into the weights where this bit is set. */
#define IN_WEIGHTS ((uint64_t)1 << 63)
DEVICE uint8_t *argument(const struct worker *me, const uint64_t *table, int index) {
  const uint64_t place = table[me->at.arguments + (uint32_t)index];
  return place & IN_WEIGHTS ? (uint8_t *)me->at.weights + (place & ~IN_WEIGHTS) : me->at.arena + place;
}
DEVICE uint8_t *scratch(const struct worker *me, uint64_t offset) { return me->at.arena + offset; }

/* The block's part of `count` units, and those of it that are the `count` units from `first` on, numbered from 0. */
DEVICE struct range part_of(const struct worker *me, int count) {
  return {(int)((int64_t)count * me->block / me->blocks), (int)((int64_t)count * (me->block + 1) / me->blocks)};
}
DEVICE int clamp_to(int value, int low, int high) { return value < low ? low : value > high ? high : value; }
DEVICE struct range within(struct range part, int first, int count) {
  return {clamp_to(part.begin - first, 0, count), clamp_to(part.end - first, 0, count)};
}

/* Rows that this block makes for itself: in shared memory where they fit, else in its own part of global memory. */
DEVICE float *own_rows(struct worker *me, int64_t floats, uint64_t offset) {
  const int64_t bytes = (floats * 4 + 15) / 16 * 16;
  if (me->rows_used + bytes > ROWS_BYTES) return (float *)(me->at.own + OWN_BYTES * (uint64_t)me->block + offset);
  float *rows = (float *)(shared_memory() + ROWS_AT + me->rows_used);
  me->rows_used += (int)bytes;
  return rows;
}

/* Whether rows are so many that tensor cores compute them, and that blocks share out what each makes for itself otherwise. */
DEVICE bool are_many(int rows) { return WIDE_ROWS > 0 && rows >= 16; }

/* Rows that this block makes: all of them for itself, or where they are many its part, in memory of all. */
DEVICE struct range rows_of(const struct worker *me, int rows) {
  return are_many(rows) ? part_of(me, rows) : range{0, rows};
}
DEVICE float *made_rows(struct worker *me, int rows, int64_t floats, uint64_t own, uint64_t shared) {
  return are_many(rows) ? (float *)scratch(me, shared) : own_rows(me, floats, own);
}

/* Rows that others have made, near by where they fit. */
DEVICE const float *near_rows(struct worker *me, const float *rows, int64_t floats) {
  const int64_t bytes = (floats * 4 + 15) / 16 * 16;
  if (me->rows_used + bytes > ROWS_BYTES) return rows;
  float *near = (float *)(shared_memory() + ROWS_AT + me->rows_used);
  me->rows_used += (int)bytes;
  /* Values start on 64 bytes. Many loads are under way at once, since the block waits for them. */
  const int vectors = (int)(floats / 4);
#pragma unroll 8
  for (int i = me->thread; i < vectors; i += COMPUTE_THREADS) ((vec16 *)near)[i] = ((const vec16 *)rows)[i];
  for (int i = 4 * vectors + me->thread; i < (int)floats; i += COMPUTE_THREADS) near[i] = rows[i];
  return near;
}

DEVICE void report_trouble(const struct worker *me, int stage, uint32_t arrived, uint32_t expected) {
  struct mailbox *box = me->at.mailbox;
  if (exchange_host(&box->trouble, 1) == 0) {
    store_host(&box->block, me->block);
    store_host(&box->stage, stage);
    store_host(&box->arrived, (int32_t)arrived);
    store_host(&box->expected, (int32_t)expected);
    store_host(&box->trouble, TROUBLE_TOLD);
  } else {
    /* Who ends the kernel ends the block that is telling, too. */
    const uint64_t start = nanoseconds();
    while (load_host(&box->trouble) != TROUBLE_TOLD && nanoseconds() - start < WATCHDOG_NS / 10) relax("what is told");
  }
  trap();
}

/* The end of a stage: what all blocks wrote in it can be read by all. */
DEVICE void hand_off(struct worker *me, int stage) {
  uint32_t *arrivals = &me->at.counters->arrivals[me->at.number % 3];
  compute_sync();
  me->hand_offs++;
  me->rows_used = 0;
  if (me->thread == 0) {
    const uint32_t expected = me->hand_offs * (uint32_t)me->blocks;
    add_release(arrivals, 1);
    uint32_t arrived = load_acquire(arrivals);
    if (arrived < expected) {
      const uint64_t start = nanoseconds();
      for (uint32_t polls = 1; (arrived = load_acquire(arrivals)) < expected; ++polls) {
        relax("hand-off");
        if (polls % 4096 == 0 && nanoseconds() - start > WATCHDOG_NS) report_trouble(me, stage, arrived, expected);
      }
      me->wait_ns += nanoseconds() - start;
    }
  }
  compute_sync();
}

/* A hand-off at the end of an iteration that may be the last: when no element is 0, or the host asks to stop. */
DEVICE void hand_off_until(struct worker *me, int stage, const int32_t *until, int elements, int iteration) {
  uint32_t *aborted = &me->at.counters->aborted[iteration % 2];
  if (me->block == 0 && me->thread == 0) *aborted = load_host(&me->at.mailbox->aborted) != 0;
  hand_off(me, stage);
  bool all = true;
  for (int i = 0; i < elements; ++i) all = all && until[i] != 0;
  me->last_iteration = all || *aborted != 0;
}

/*
 * Shows the host what an iteration has emitted, while the kernel goes on; by the threads that have made it. A token is one
 * store, which says by itself that it is there: no order among stores is needed, and nobody waits for the bus.
 */
DEVICE void show_tokens(const struct worker *me, const int32_t *emitted, int samples, int iteration) {
  for (int s = me->thread; s < samples; s += COMPUTE_THREADS) show_host(&me->at.tokens[iteration * samples + s], emitted[s]);
}

/* After rows were made: where they are many, all blocks wait for all parts. */
DEVICE void share_rows(struct worker *me, int stage, int rows) {
  if (are_many(rows)) hand_off(me, stage);
}

DEVICE void copy_bytes(struct worker *me, void *to, const void *from, int bytes) {
  for (int i = me->thread; i < bytes / 4; i += COMPUTE_THREADS) ((uint32_t *)to)[i] = ((const uint32_t *)from)[i];
}

/* The features that a range of tiles of 16 covers. */
DEVICE struct range features_of(struct range tiles, int features) {
  return {clamp_to(tiles.begin * 16, 0, features), clamp_to(tiles.end * 16, 0, features)};
}
