/*
 * Stands in for device.cuh, so that the kernels run on a processor. Every thread of the GPU is a fiber; one thread of the
 * system runs them all, warp by warp, in an order drawn from a seed; some lanes of a warp may stay behind for a while. Copies in
 * the background happen at a random later moment, and what is stored on the host takes its time. Where nothing can go on any more, the run ends and says who waited for what: a deadlock is found, not timed out.
 *
 * Under ThreadSanitizer fibers are told apart, and only the orders that the kernels themselves make count: a race between
 * blocks, or between the threads of a block, is reported even if this schedule has hidden it.
 */
#pragma once
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEVICE static inline __attribute__((unused))
#define DEVICE_MEMBER static inline __attribute__((unused))
#define DEVICE_CALL static __attribute__((noinline, unused))
#define DEVICE_TABLE static const
#define KERNEL extern "C" __attribute__((visibility("default"))) void
#define LIGHT_KERNEL KERNEL
#define INFINITY_F __builtin_inff()
#define COPY_ARRIVALS 1

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define SYNC_RELEASE(p) __tsan_release(p)
#define SYNC_ACQUIRE(p) __tsan_acquire(p)
#define UNWATCHED __attribute__((no_sanitize("thread"), noinline, unused))
#else
#define SYNC_RELEASE(p) (void)(p)
#define SYNC_ACQUIRE(p) (void)(p)
#define UNWATCHED __attribute__((unused))
#endif

struct alignas(16) vec16 {
  uint32_t word[4];
};
struct alignas(8) vec8 {
  uint32_t word[2];
};

namespace shim {

/* What std::vector would be for; its headers would be a quarter of the time that a kernel takes to compile. */
template <typename T>
struct list {
  T *items = nullptr;
  size_t count = 0;
  list() = default;
  list(const list &) = delete;
  list &operator=(const list &) = delete;
  ~list() { delete[] items; }
  /* Once, on an empty list. */
  void make(size_t length) {
    items = new T[length]();
    count = length;
  }
  T &operator[](size_t i) const { return items[i]; }
  T *begin() const { return items; }
  T *end() const { return items + count; }
};

constexpr size_t stack_bytes = 128 << 10, max_copies = 4096;

enum wait_kind { RUNS, WARP, COMPUTE, BLOCK, POLLS, EARLIER, DONE };

struct warp_state {
  /* Exchanges of all lanes so far; what each lane gave to the last two: a value, or the fragments of two matrices. */
  uint64_t arrivals = 0;
  uint32_t words[2][32][6];
  /* The lanes that go on for so many visits more, while the others stay behind. */
  uint32_t lanes = ~0u;
  int visits = 0;
};

struct block_state {
  uint64_t compute_arrivals = 0, arrivals = 0;
  /* Addresses by which a sanitizer knows one barrier from the next: who leaves late must not see who has come early. */
  uint8_t compute_turns[2];
  list<uint8_t> shared;
  uint8_t *shared_base = nullptr;
  list<warp_state> warps;
};

struct fiber {
  void *stack_pointer = nullptr;
  uint8_t *stack = nullptr;
  void *sanitizer = nullptr;
  int block = 0, thread = 0;
  enum wait_kind wait = RUNS;
  uint64_t exchanges = 0, compute_syncs = 0, syncs = 0;
  bool waited = false;
  const char *what = "";
};

/* Runs the kernels before one that began early; false where they went wrong. Nothing where all of them have ended. */
struct prerequisites {
  bool (*run)(void *) = nullptr;
  void *context = nullptr;
};

struct copy {
  uint8_t *to;
  const uint8_t *from;
  int bytes;
  uint64_t *barrier;
};

struct run_state {
  list<fiber> fibers;
  list<block_state> blocks;
  /* On their way; an array, since a vector's own code would be watched. */
  copy copies[max_copies];
  size_t copy_count = 0;
  fiber *current = nullptr;
  void *scheduler = nullptr;
  void *scheduler_sanitizer = nullptr;
  void (*body)(const void *) = nullptr;
  const void *argument = nullptr;
  int threads = 0, compute_threads = 0, block_count = 0;
  uint64_t random = 1, progress = 0, clock = 0, clock_step = 1;
  int idle = 0;
  bool trapped = false, keeps_copies = false, prerequisites_ended = false;
};

static run_state *run;

UNWATCHED static uint64_t next_random() {
  run->random ^= run->random << 13;
  run->random ^= run->random >> 7;
  run->random ^= run->random << 17;
  return run->random;
}

#if !defined(__x86_64__)
#error "the fibers of the host shim are written for x86-64"
#endif
/* Saves what a call must keep, and goes on where `to` was left. */
extern "C" void shim_switch(void **from, void *to);
__asm__(R"(
.text
.local shim_switch
.type shim_switch, @function
shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

UNWATCHED static void to_scheduler() {
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(run->scheduler_sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
  shim_switch(&run->current->stack_pointer, run->scheduler);
}

UNWATCHED static void to_fiber(fiber &f) {
  run->current = &f;
#if defined(__SANITIZE_THREAD__)
  __tsan_switch_to_fiber(f.sanitizer, __tsan_switch_to_fiber_no_sync);
#endif
  shim_switch(&run->scheduler, f.stack_pointer);
}

UNWATCHED static void fiber_main() {
  SYNC_ACQUIRE(run);
  run->body(run->argument);
  SYNC_RELEASE(run);
  run->current->wait = DONE;
  run->progress++;
  to_scheduler();
  abort();
}

UNWATCHED static void wait_as(enum wait_kind kind, const char *what) {
  run->current->wait = kind;
  run->current->what = what;
  to_scheduler();
  run->current->wait = RUNS;
}

UNWATCHED static bool can_run(const fiber &f) {
  const block_state &block = run->blocks[(size_t)f.block];
  switch (f.wait) {
    case WARP: return block.warps[(size_t)f.thread / 32].arrivals >= 32 * f.exchanges;
    case COMPUTE: return block.compute_arrivals >= (uint64_t)run->compute_threads * f.compute_syncs;
    case BLOCK: return block.arrivals >= (uint64_t)run->threads * f.syncs;
    case EARLIER: return run->prerequisites_ended;
    case DONE: return false;
    default: return true;
  }
}

/* The state of a copy barrier in 64 bits: arrivals wanted and still missing, bytes still missing, phase. */
struct barrier_bits {
  uint16_t wanted;
  int16_t missing;
  int32_t bytes : 31;
  uint32_t phase : 1;
};
static_assert(sizeof(barrier_bits) == 8, "as large as the GPU's");

UNWATCHED static void settle(barrier_bits *bits) {
  if (bits->missing != 0 || bits->bytes != 0) return;
  bits->missing = (int16_t)bits->wanted;
  bits->phase ^= 1;
  run->progress++;
}

UNWATCHED static bool finish_a_copy() {
  if (run->copy_count == 0 || run->keeps_copies) return false;
  const size_t chosen = next_random() % run->copy_count;
  const copy done = run->copies[chosen];
  run->copies[chosen] = run->copies[--run->copy_count];
  SYNC_ACQUIRE(run->copies);
  memcpy(done.to, done.from, (size_t)done.bytes);
  SYNC_RELEASE(done.barrier);
  barrier_bits *bits = (barrier_bits *)done.barrier;
  bits->bytes -= done.bytes;
  run->progress++;
  settle(bits);
  return true;
}

/* Which lanes go on: mostly all of them, and all of them where a whole round of warps has changed nothing. */
UNWATCHED static uint32_t lanes_of(warp_state &warp) {
  if (run->idle > 0) {
    warp.visits = 0;
    warp.lanes = ~0u;
  } else if (warp.visits > 0) warp.visits--;
  else if (next_random() % 32 == 0) {
    warp.lanes = (uint32_t)next_random();
    warp.visits = (int)(next_random() % 16);
  } else warp.lanes = ~0u;
  return warp.lanes;
}

/* Runs a warp until all its lanes wait, of those that go on. */
UNWATCHED static void visit_warp(size_t first) {
  bool polled[32] = {};
  const fiber &one = run->fibers[first];
  const uint32_t lanes = lanes_of(run->blocks[(size_t)one.block].warps[(size_t)one.thread / 32]);
  for (bool any = true; any && !run->trapped;) {
    any = false;
    for (size_t lane = 0; lane < 32 && !run->trapped; ++lane) {
      fiber &f = run->fibers[first + lane];
      if ((lanes >> lane & 1) == 0 || !can_run(f) || (f.wait == POLLS && polled[lane])) continue;
      polled[lane] = polled[lane] || f.wait == POLLS;
      to_fiber(f);
      any = true;
    }
  }
}

static void describe_waits(char *text, size_t size) {
  static const char *const kinds[] = {"runs", "its warp", "compute warps", "its block", "polls", "the kernel before", "done"};
  size_t length = 0;
  int listed = 0;
  for (const fiber &f : run->fibers) {
    if (f.wait == DONE || f.thread % 32 != 0) continue;
    if (++listed > 12 || length >= size) break;
    length += (size_t)snprintf(text + length, size - length, "%sblock %d warp %d waits for %s (%s)", length == 0 ? "" : "; ",
                               f.block, f.thread / 32, kinds[f.wait], f.what);
  }
}

static bool any_waits_as(enum wait_kind kind) {
  for (const fiber &f : run->fibers)
    if (f.wait == kind) return true;
  return false;
}

static bool all_wait_as(enum wait_kind kind) {
  for (const fiber &f : run->fibers)
    if (f.wait != kind) return false;
  return true;
}

/* Memory of fibers is kept between runs: making it takes longer than a small kernel. Each spare one begins with the next. */
static uint8_t *spare_stack;

static uint8_t *take_stack() {
  uint8_t *stack = spare_stack;
  if (stack == nullptr) return (uint8_t *)aligned_alloc(64, stack_bytes);
  memcpy(&spare_stack, stack, sizeof spare_stack);
  return stack;
}

static void keep_stack(uint8_t *stack) {
  memcpy(stack, &spare_stack, sizeof spare_stack);
  spare_stack = stack;
}

static void make_fibers() {
  run->fibers.make((size_t)(run->block_count * run->threads));
  for (size_t i = 0; i < run->fibers.count; ++i) {
    fiber &f = run->fibers[i];
    f.block = (int)i / run->threads;
    f.thread = (int)i % run->threads;
    f.stack = take_stack();
    /* As shim_switch leaves a stack: six registers, then where to go on, as if called from an aligned place. */
    void **top = (void **)(f.stack + stack_bytes) - 1;
    *--top = (void *)fiber_main;
    for (int r = 0; r < 6; ++r) *--top = nullptr;
    f.stack_pointer = top;
#if defined(__SANITIZE_THREAD__)
    f.sanitizer = __tsan_create_fiber(0);
#endif
  }
}

/* Every warp once, in an order that is drawn anew. */
UNWATCHED static void sweep(const list<size_t> &order) {
  for (size_t i = order.count; i > 1; --i) {
    size_t &one = order[next_random() % i];
    const size_t other = order[i - 1];
    order[i - 1] = one;
    one = other;
  }
  for (size_t first : order) {
    visit_warp(first);
    if (next_random() % 4 == 0) finish_a_copy();
    run->clock += run->clock_step;
  }
}

enum outcome { ENDED = 0, TRAPPED = 1, STUCK = 2 };

/* What goes wrong: the last block never runs, or copies never land. Then time passes fast, for the watchdog. */
enum fault { NOTHING = 0, NO_LAST_BLOCK = 1, NO_COPIES = 2 };

/*
 * Runs body(argument) on all threads. Where the kernels before it have not run yet, they do once nothing here can go on
 * without them: as early as no machine begins a kernel, so that whatever is used before they are waited for is wrong.
 */
static int run_grid(void (*body)(const void *), const void *argument, int blocks, int threads, int shared_bytes, uint64_t seed,
                    fault fault, prerequisites before_this, char *why, size_t why_size) {
  run_state state;
  run_state *const outer = run;
  run = &state;
  state.prerequisites_ended = before_this.run == nullptr;
  state.body = body;
  state.argument = argument;
  state.block_count = blocks;
  state.threads = threads;
  state.compute_threads = threads < COMPUTE_THREADS ? threads : COMPUTE_THREADS;
  state.random = seed * 2654435761u + 88172645463325252ull;
  state.clock_step = fault == NOTHING ? 100 : 1000000;
  state.keeps_copies = fault == NO_COPIES;
  state.blocks.make((size_t)blocks);
  for (block_state &block : state.blocks) {
    block.shared.make((size_t)shared_bytes + 128);
    memset(block.shared.items, 0xcd, block.shared.count);
    block.shared_base = (uint8_t *)(((uintptr_t)block.shared.items + 127) / 128 * 128);
    block.warps.make((size_t)threads / 32);
  }
#if defined(__SANITIZE_THREAD__)
  state.scheduler_sanitizer = __tsan_get_current_fiber();
  SYNC_RELEASE(&state);
#endif
  make_fibers();
  for (fiber &f : state.fibers)
    if (fault == NO_LAST_BLOCK && f.block == blocks - 1) f.wait = DONE;
  list<size_t> order;
  order.make(state.fibers.count / 32);
  for (size_t warp = 0; warp < order.count; ++warp) order[warp] = 32 * warp;
  int outcome = ENDED;
  for (;;) {
    const uint64_t before = state.progress;
    sweep(order);
    if (state.trapped) {
      outcome = TRAPPED;
      break;
    }
    if (all_wait_as(DONE)) break;
    if (state.progress != before || finish_a_copy()) state.idle = 0;
    else if (!state.prerequisites_ended && any_waits_as(EARLIER)) {
      if (!before_this.run(before_this.context)) {
        outcome = STUCK;
        snprintf(why, why_size, "the kernel before this one went wrong");
        break;
      }
      state.prerequisites_ended = true;
    } else if (++state.idle > (fault == NOTHING ? 3 : 100000)) {
      outcome = STUCK;
      describe_waits(why, why_size);
      break;
    }
  }
  if (outcome == ENDED && state.copy_count != 0) {
    outcome = STUCK;
    snprintf(why, why_size, "a block ended while bytes were on their way to its memory");
  }
  for (const fiber &f : state.fibers) {
    if (outcome != ENDED || before_this.run == nullptr || f.waited || f.thread >= state.compute_threads) continue;
    outcome = STUCK;
    snprintf(why, why_size, "a kernel that began early did not wait for the one before it");
  }
  SYNC_ACQUIRE(&state);
  for (fiber &f : state.fibers) {
    keep_stack(f.stack);
#if defined(__SANITIZE_THREAD__)
    __tsan_destroy_fiber(f.sanitizer);
#endif
  }
  run = outer;
  return outcome;
}

}  // namespace shim

DEVICE int thread_index() { return shim::run->current->thread; }
DEVICE int block_index() { return shim::run->current->block; }
DEVICE int block_count() { return shim::run->block_count; }
DEVICE shim::block_state &this_block() { return shim::run->blocks[(size_t)block_index()]; }
DEVICE uint8_t *shared_memory() { return this_block().shared_base; }

UNWATCHED static void block_sync() {
  shim::block_state &block = this_block();
  SYNC_RELEASE(&block.arrivals);
  block.arrivals++;
  shim::run->progress++;
  shim::run->current->syncs++;
  while (!(block.arrivals >= (uint64_t)shim::run->threads * shim::run->current->syncs)) shim::wait_as(shim::BLOCK, "");
  SYNC_ACQUIRE(&block.arrivals);
}
UNWATCHED static void compute_sync() {
  shim::block_state &block = this_block();
  const uint64_t turn = shim::run->current->compute_syncs++ & 1;
  SYNC_RELEASE(&block.compute_turns[turn]);
  block.compute_arrivals++;
  shim::run->progress++;
  while (!(block.compute_arrivals >= (uint64_t)shim::run->compute_threads * shim::run->current->compute_syncs))
    shim::wait_as(shim::COMPUTE, "");
  SYNC_ACQUIRE(&block.compute_turns[turn]);
}
/* Kernels begin early whether or not the one before them allows it: earlier than on any machine. */
DEVICE void launch_dependents() {}
UNWATCHED static void wait_for_prerequisites() {
  shim::run->current->waited = true;
  shim::run->progress++;
  while (!shim::run->prerequisites_ended) shim::wait_as(shim::EARLIER, "");
}

typedef uint32_t lane_words[6];
/* Gives words to the other lanes of the warp; what all lanes gave. */
UNWATCHED static const lane_words *exchange(const uint32_t *words, size_t count) {
  shim::fiber &f = *shim::run->current;
  shim::warp_state &warp = this_block().warps[(size_t)f.thread / 32];
  const uint64_t turn = f.exchanges++ & 1;
  for (size_t i = 0; i < count; ++i) warp.words[turn][f.thread % 32][i] = words[i];
  SYNC_RELEASE(warp.words[turn]);
  warp.arrivals++;
  shim::run->progress++;
  while (warp.arrivals < 32 * f.exchanges) shim::wait_as(shim::WARP, "");
  SYNC_ACQUIRE(warp.words[turn]);
  return warp.words[turn];
}
UNWATCHED static float shuffle_xor(float value, int mask) {
  uint32_t word;
  memcpy(&word, &value, sizeof word);
  memcpy(&value, exchange(&word, 1)[thread_index() % 32 ^ mask], sizeof value);
  return value;
}
DEVICE void warp_sync() { (void)shuffle_xor(0.0f, 0); }
UNWATCHED static uint32_t of_first_lane(uint32_t value) { return exchange(&value, 1)[0][0]; }

UNWATCHED static void went_on() { shim::run->progress++; }
DEVICE uint32_t load_acquire(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
DEVICE void add_release(uint32_t *p, uint32_t value) {
  went_on();
  __atomic_fetch_add(p, value, __ATOMIC_RELEASE);
}
DEVICE uint32_t add_acquire_release(uint32_t *p, uint32_t value) {
  went_on();
  return __atomic_fetch_add(p, value, __ATOMIC_ACQ_REL);
}
DEVICE void add_counter(uint64_t *p, uint64_t value) { __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
DEVICE void add_shared(uint64_t *p, uint64_t value) { __atomic_fetch_add(p, value, __ATOMIC_RELAXED); }
UNWATCHED static void linger() {
  if (shim::next_random() % 4 == 0) shim::wait_as(shim::POLLS, "nothing");
}
DEVICE uint32_t load_shared(const uint32_t *p) {
  linger();
  return __atomic_load_n(p, __ATOMIC_RELAXED);
}
DEVICE void store_shared(uint32_t *p, uint32_t value) {
  went_on();
  __atomic_store_n(p, value, __ATOMIC_RELAXED);
}
DEVICE void store_count(uint32_t *p, uint32_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
DEVICE void add_count(uint32_t *p) { __atomic_fetch_add(p, 1, __ATOMIC_RELAXED); }
DEVICE uint32_t take_count(uint32_t *p) { return __atomic_exchange_n(p, 0, __ATOMIC_RELAXED); }
DEVICE void store_same(float *p, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  __atomic_store_n((uint32_t *)p, bits, __ATOMIC_RELAXED);
}
DEVICE int32_t load_host(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
/* Over the bus, while others go on. */
DEVICE void store_host(int32_t *p, int32_t value) {
  shim::wait_as(shim::POLLS, "the bus");
  __atomic_store_n(p, value, __ATOMIC_SEQ_CST);
}
DEVICE void show_host(int32_t *p, int32_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
DEVICE uint32_t exchange_host(int32_t *p, int32_t value) { return (uint32_t)__atomic_exchange_n(p, value, __ATOMIC_SEQ_CST); }

UNWATCHED static uint64_t nanoseconds() { return shim::run->clock; }
DEVICE void relax(const char *what) { shim::wait_as(shim::POLLS, what); }
UNWATCHED static void trap() {
  shim::run->trapped = true;
  shim::wait_as(shim::POLLS, "trap");
}

DEVICE float bits_to_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
DEVICE uint32_t float_to_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

DEVICE float half_to_float(uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const float sign = bits & 0x8000 ? -1.0f : 1.0f;
  if (exponent == 31) return mantissa == 0 ? sign * INFINITY_F : __builtin_nanf("");
  return sign * (exponent == 0 ? ldexpf((float)mantissa, -24) : ldexpf((float)(1024 + mantissa), exponent - 25));
}
DEVICE int dot_of_bytes(uint32_t a, uint32_t b, int sum) {
  for (int i = 0; i < 32; i += 8) sum += (int8_t)(a >> i) * (int8_t)(b >> i);
  return sum;
}

DEVICE uint32_t bf16_of(float value) {
  const uint32_t bits = float_to_bits(value);
  return (bits & 0x7fffffffu) > 0x7f800000u ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
DEVICE uint32_t two_bf16(float low, float high) { return bf16_of(high) << 16 | bf16_of(low); }

/* Words of row `row` of a and column `column` of b, from the fragments of all lanes. */
UNWATCHED static uint32_t word_of_a(const lane_words *lanes, int row, int word) {
  return lanes[row % 8 * 4 + word % 4][row / 8 + word / 4 * 2];
}
UNWATCHED static uint32_t word_of_b(const lane_words *lanes, int column, int word) {
  return lanes[column * 4 + word % 4][4 + word / 4];
}
/* ADD(sum, word of a, word of b) for the four sums of this lane. */
template <typename SUM, SUM (*ADD)(SUM, uint32_t, uint32_t)>
UNWATCHED static void mma(SUM sums[4], const uint32_t a[4], const uint32_t b[2]) {
  const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const lane_words *lanes = exchange(mine, 6);
  const int g = thread_index() % 32 / 4, t = thread_index() % 4;
  for (int i = 0; i < 4; ++i)
    for (int word = 0; word < 8; ++word)
      sums[i] = ADD(sums[i], word_of_a(lanes, g + i / 2 * 8, word), word_of_b(lanes, 2 * t + i % 2, word));
}
DEVICE float add_bf16(float sum, uint32_t a, uint32_t b) {
  sum += bits_to_float(a << 16) * bits_to_float(b << 16);
  return sum + bits_to_float(a & 0xffff0000u) * bits_to_float(b & 0xffff0000u);
}
DEVICE int32_t add_int8(int32_t sum, uint32_t a, uint32_t b) { return dot_of_bytes(a, b, sum); }
DEVICE void mma_bf16(float sums[4], const uint32_t a[4], const uint32_t b[2]) { mma<float, add_bf16>(sums, a, b); }
DEVICE void mma_int8(int32_t sums[4], const uint32_t a[4], const uint32_t b[2]) { mma<int32_t, add_int8>(sums, a, b); }

typedef uint64_t copy_barrier;

UNWATCHED static void barrier_init(copy_barrier *barrier, int arrivals) {
  *(shim::barrier_bits *)barrier = {(uint16_t)arrivals, (int16_t)arrivals, 0, 0};
}
UNWATCHED static void barrier_arrive(copy_barrier *barrier) {
  shim::barrier_bits *bits = (shim::barrier_bits *)barrier;
  SYNC_RELEASE(barrier);
  bits->missing--;
  shim::run->progress++;
  shim::settle(bits);
}
UNWATCHED static bool barrier_passed(copy_barrier *barrier, uint32_t parity) {
  if (((shim::barrier_bits *)barrier)->phase == parity) return false;
  SYNC_ACQUIRE(barrier);
  return true;
}
DEVICE void barriers_ready() { block_sync(); }
UNWATCHED static void copy_async(uint8_t *to, const uint8_t *from, int bytes, copy_barrier *barrier) {
  if (thread_index() % 32 != 0) return;
  if (bytes % 16 != 0 || (uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0) abort();
  shim::barrier_bits *bits = (shim::barrier_bits *)barrier;
  bits->bytes += bytes;
  if (shim::run->copy_count == shim::max_copies) abort();
  shim::run->copies[shim::run->copy_count++] = {to, from, bytes, barrier};
  SYNC_RELEASE(shim::run->copies);
  barrier_arrive(barrier);
}
