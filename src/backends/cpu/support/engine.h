/*
 * The machine under the kernels: one arena for everything that is written, the packed weights mapped from their file, and
 * workers that stay alive between and inside kernel calls. A hand-off is a barrier of all workers: they spin for a moment,
 * since the wait is usually short, and then sleep, since on a shared machine the one they wait for may not be running.
 */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#endif

#define ENGINE_MAX_WORKERS 256
/* About 20 us: longer than any stage of a small model, much shorter than a time slice. */
#define ENGINE_SPINS 4000
#define CACHE_LINE 64

struct engine;

/* Counters are the worker's own, so that counting needs no synchronization. */
struct worker {
  struct engine *engine;
  int index;
  uint32_t phase;
  uint32_t launch;
  uint8_t *own;
  uint64_t bytes_read;
  uint64_t wait_ns;
  pthread_t thread;
} __attribute__((aligned(CACHE_LINE)));

typedef void (*kernel_function)(struct worker *me, const uint64_t *arguments);

/* One kernel call of the program: which kernel, and where its arguments are. */
struct call {
  kernel_function kernel;
  const uint64_t *arguments;
};

/* An argument is an offset into the arena, or into the weights where this bit is set. */
#define IN_WEIGHTS ((uint64_t)1 << 63)

struct engine {
  int threads;
  int rows;
  int samples;
  /* Workers agree on leaving a loop by this, written before a hand-off and read after it. */
  int stop;
  uint8_t *arena;
  uint8_t *own;
  const uint8_t *weights;
  uint64_t arena_bytes;
  uint64_t own_bytes;
  uint64_t weight_bytes;
  uint64_t kernel_calls;
  uint64_t barriers;
  const struct call *call;
  _Atomic int aborted;
  _Atomic int closing;
  _Atomic uint32_t arrived __attribute__((aligned(CACHE_LINE)));
  _Atomic uint32_t phase __attribute__((aligned(CACHE_LINE)));
  _Atomic uint32_t sleepers;
  _Atomic uint32_t launch __attribute__((aligned(CACHE_LINE)));
  struct worker workers[ENGINE_MAX_WORKERS];
};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

static uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_while(_Atomic uint32_t *word, uint32_t value) {
#if defined(__linux__)
  syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
#else
  (void)word, (void)value;
  const struct timespec moment = {0, 50000};
  nanosleep(&moment, NULL);
#endif
}

static void wake_all(_Atomic uint32_t *word) {
#if defined(__linux__)
  syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
#else
  (void)word;
#endif
}

/* Returns when *word is no longer `value`. */
static void wait_for_change(struct engine *e, _Atomic uint32_t *word, uint32_t value) {
  for (int spin = 0; spin < ENGINE_SPINS; ++spin) {
    if (atomic_load_explicit(word, memory_order_acquire) != value) return;
    pause_briefly();
  }
  atomic_fetch_add(&e->sleepers, 1);
  while (atomic_load(word) == value) sleep_while(word, value);
  atomic_fetch_sub(&e->sleepers, 1);
}

static void change(struct engine *e, _Atomic uint32_t *word, uint32_t value) {
  atomic_store(word, value);
  if (atomic_load(&e->sleepers) != 0) wake_all(word);
}

/* Every worker has finished what it did before; what it wrote is visible to all. */
static void hand_off(struct worker *me) {
  struct engine *e = me->engine;
  if (me->index == 0) e->barriers++;
  if (e->threads == 1) return;
  const uint32_t phase = me->phase++;
  if (atomic_fetch_add_explicit(&e->arrived, 1, memory_order_acq_rel) + 1 == (uint32_t)e->threads) {
    atomic_store_explicit(&e->arrived, 0, memory_order_relaxed);
    change(e, &e->phase, phase + 1);
    return;
  }
  /* Short waits are not timed: reading the clock would cost as much as they do. */
  for (int spin = 0; spin < 64; ++spin) {
    if (atomic_load_explicit(&e->phase, memory_order_acquire) != phase) return;
    pause_briefly();
  }
  const uint64_t start = now_ns();
  wait_for_change(e, &e->phase, phase);
  me->wait_ns += now_ns() - start;
}

struct range {
  int begin, end;
};

/* This worker's part of `count` units. */
static inline struct range share(const struct worker *me, int count) {
  const int64_t threads = me->engine->threads;
  return (struct range){(int)(count * (int64_t)me->index / threads), (int)(count * ((int64_t)me->index + 1) / threads)};
}

static inline void *argument(const struct worker *me, const uint64_t *arguments, int index) {
  const uint64_t place = arguments[index];
  const struct engine *e = me->engine;
  /* Weights are mapped read-only; kernels take them as const. */
  return place & IN_WEIGHTS ? (uint8_t *)(uintptr_t)e->weights + (place & ~IN_WEIGHTS) : e->arena + place;
}

/* A buffer that all workers share, or this worker's own. */
static inline void *scratch(const struct worker *me, uint64_t offset) { return me->engine->arena + offset; }
static inline void *own(const struct worker *me, uint64_t offset) { return me->own + offset; }

/* True in all workers or in none: every element is non-zero, or the host asked to stop. Between two hand-offs. */
static inline bool should_stop(const struct worker *me, const int32_t *until, int count) {
  bool all = true;
  for (int i = 0; i < count; ++i) all = all && until[i] != 0;
  return all || me->engine->stop;
}

static inline void note_abort(struct worker *me) {
  if (me->index == 0) me->engine->stop = atomic_load_explicit(&me->engine->aborted, memory_order_relaxed);
}

static void run_call(struct worker *me) {
  const struct call *call = me->engine->call;
  call->kernel(me, call->arguments);
  /* The end of a kernel call is a synchronization boundary. */
  hand_off(me);
}

static void *worker_main(void *argument_) {
  struct worker *me = argument_;
  struct engine *e = me->engine;
  for (;;) {
    wait_for_change(e, &e->launch, me->launch);
    me->launch++;
    if (atomic_load(&e->closing)) return NULL;
    run_call(me);
  }
}

static void *map_memory(uint64_t bytes) {
  void *memory = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
  madvise(memory, bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

static const uint8_t *map_weights(const char *path, uint64_t bytes, char *error, size_t error_size) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file < 0 || fstat(file, &status) != 0 || (uint64_t)status.st_size < bytes) {
    snprintf(error, error_size, "cannot read %llu bytes of packed weights: %s", (unsigned long long)bytes,
             file < 0 ? strerror(errno) : "the file is too short");
    if (file >= 0) close(file);
    return NULL;
  }
  int flags = MAP_SHARED;
#if defined(MAP_POPULATE)
  flags |= MAP_POPULATE;
#endif
  void *weights = mmap(NULL, bytes ? bytes : 1, PROT_READ, flags, file, 0);
  if (weights == MAP_FAILED) snprintf(error, error_size, "cannot map the packed weights: %s", strerror(errno));
  close(file);
  return weights == MAP_FAILED ? NULL : weights;
}

static void engine_free(struct engine *e) {
  if (e->weights) munmap((void *)(uintptr_t)e->weights, e->weight_bytes ? e->weight_bytes : 1);
  if (e->arena) munmap(e->arena, e->arena_bytes ? e->arena_bytes : 1);
  if (e->own) munmap(e->own, e->own_bytes * (uint64_t)e->threads + 1);
  free(e);
}

static void engine_stop_workers(struct engine *e, int started) {
  atomic_store(&e->closing, 1);
  change(e, &e->launch, atomic_load(&e->launch) + 1);
  for (int i = 1; i < started; ++i) pthread_join(e->workers[i].thread, NULL);
}

static struct engine *engine_open(const char *path, int threads, uint64_t arena_bytes, uint64_t own_bytes,
                                  uint64_t weight_bytes, char *error, size_t error_size) {
  struct engine *e = aligned_alloc(CACHE_LINE, sizeof *e);
  if (!e) {
    snprintf(error, error_size, "out of memory");
    return NULL;
  }
  memset(e, 0, sizeof *e);
  e->threads = threads < 1 ? 1 : threads > ENGINE_MAX_WORKERS ? ENGINE_MAX_WORKERS : threads;
  e->arena_bytes = arena_bytes;
  e->own_bytes = own_bytes;
  e->weight_bytes = weight_bytes;
  e->arena = map_memory(arena_bytes);
  e->own = map_memory(own_bytes * (uint64_t)e->threads + 1);
  if (!e->arena || !e->own) {
    snprintf(error, error_size, "out of memory: %llu bytes for activations and KV cache",
             (unsigned long long)(arena_bytes + own_bytes * (uint64_t)e->threads));
    engine_free(e);
    return NULL;
  }
  e->weights = map_weights(path, weight_bytes, error, error_size);
  if (!e->weights) {
    engine_free(e);
    return NULL;
  }
  for (int i = 0; i < e->threads; ++i) {
    e->workers[i] = (struct worker){.engine = e, .index = i, .own = e->own + own_bytes * (uint64_t)i};
    if (i > 0 && pthread_create(&e->workers[i].thread, NULL, worker_main, &e->workers[i]) != 0) {
      snprintf(error, error_size, "cannot start worker thread %d of %d", i, e->threads);
      engine_stop_workers(e, i);
      engine_free(e);
      return NULL;
    }
  }
  return e;
}

static void engine_launch(struct engine *e, const struct call *call, int rows, int samples) {
  e->call = call;
  e->rows = rows;
  e->samples = samples;
  e->stop = 0;
  e->kernel_calls++;
  if (e->threads > 1) change(e, &e->launch, atomic_load_explicit(&e->launch, memory_order_relaxed) + 1);
  run_call(&e->workers[0]);
}

static void engine_close(struct engine *e) {
  engine_stop_workers(e, e->threads);
  engine_free(e);
}
