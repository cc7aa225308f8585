/*
 * The machine under the kernels: one arena for everything that is written, the packed weights (mapped from their file, or
 * copied into memory of their own), and workers that stay alive between and inside kernel calls.
 *
 * A stage is cut into chunks. Every worker takes chunks of its own part first, then of the others' parts, and the stage is
 * over when all chunks are done: not when all workers have come. A worker that the system does not run delays nobody unless
 * it holds a chunk; when it comes back it finds the stages behind it complete and runs through them. It touches data only
 * while it holds a chunk, since the stage cannot end before that chunk is done.
 */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
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

/* Before a loop of so many rounds at most, a constant once it is inlined: all of them stand one after another, so that what it
 * indexes can be registers. */
#define PRAGMA(text) _Pragma(#text)
#ifdef __clang__
#define UNROLL(most) PRAGMA(clang loop unroll(full))
#else
#define UNROLL(most) PRAGMA(GCC unroll most)
#endif

/* Four bytes of narrower numbers, as instructions take them for all lanes. */
static inline int32_t word_at(const void *at) {
  int32_t word;
  memcpy(&word, at, sizeof word);
  return word;
}

#define ENGINE_MAX_WORKERS 256
/* About 20 us: longer than most stages of a small model, much shorter than a time slice. */
#define ENGINE_SPINS 4000
/* Then a worker lets others have its processor, if there are any, and looks again. To be woken takes long where a processor
 * without work is given back to a host. */
#define ENGINE_YIELD_NS 500000
#define CACHE_LINE 64
/* How far ahead of itself a walk through weights asks for memory: where several rows share them, or they take many instructions
 * to unpack, there is so much to compute between two loads that no processor looks ahead far enough by itself. In a single
 * stream for one row those with AVX-512 do, and are slower when they are asked for the same; several tiles at once are no single
 * stream. 0: not at all. */
#define PREFETCH_BYTES 4096
#ifndef SIMD_PREFETCH_BYTES_OF_ONE_ROW
#define SIMD_PREFETCH_BYTES_OF_ONE_ROW 0
#endif
static inline __attribute__((always_inline)) size_t prefetch_bytes(int rows) {
  return rows > 1 ? PREFETCH_BYTES : SIMD_PREFETCH_BYTES_OF_ONE_ROW;
}
static inline __attribute__((always_inline)) void ask_ahead(const uint8_t *walk, size_t bytes, size_t ahead) {
  if (ahead == 0) return;
  for (size_t at = 0; at < bytes; at += CACHE_LINE) __builtin_prefetch(walk + ahead + at, 0, 3);
}
/* Outputs of a tile of weights, and positions of a tile of the KV cache: as many as a vector has lanes. */
#define TILE 16
/* Chunks of a worker's part of a stage: one would leave nothing to take over, many cost time. */
#define CHUNKS_PER_WORKER 2
/* A stage is named by launch and number: 32 and 20 bits, above 12 bits that count chunks. */
#define CHUNK_BITS 12
#define STAGE_BITS 20

struct engine;

/* Counters are the worker's own, so that counting needs no synchronization. */
struct worker {
  struct engine *engine;
  int index;
  /* That it stays on; negative: wherever the system runs it. */
  int processor;
  /* Of the launch that this worker is in. */
  int rows;
  int samples;
  /* Of the stage: its name, into how many chunks it is cut, how many this worker has done, and the one it holds. */
  uint64_t stage;
  int chunks;
  int done;
  int chunk;
  bool last_iteration;
  /* Weights that come next, to be asked for while this worker waits. */
  const uint8_t *ahead;
  const uint8_t *ahead_end;
  uint32_t launch;
  uint8_t *own;
  uint64_t bytes_read;
  /* The host may read it while a worker that has nothing to do any more still adds to it. */
  _Atomic uint64_t wait_ns;
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

/* A matrix in the packed file. */
struct span {
  double offset, bytes;
};

/* Weights on their way into memory of their own. */
struct loading {
  int file;
  const struct span *spans;
  int count;
  uint8_t *to;
  /* Workers that have not finished, and errno of one that failed. */
  _Atomic int remaining;
  _Atomic int failed;
};

struct aligned_word {
  _Atomic uint64_t value;
} __attribute__((aligned(CACHE_LINE)));

struct engine {
  int threads;
  uint8_t *arena;
  uint8_t *own;
  const uint8_t *weights;
  /* What is unmapped in the end: `weights`, or the larger area that they begin in at a large page. */
  void *weights_area;
  uint64_t weights_area_bytes;
  /* While they are copied. */
  struct loading *loading;
  uint64_t arena_bytes;
  uint64_t own_bytes;
  uint64_t weight_bytes;
  uint64_t kernel_calls;
  /* Written only by the worker that completes a stage. */
  uint64_t barriers;
  _Atomic int aborted;
  _Atomic int closing;
  /* What the workers are to run; being changed while `launch` is odd. */
  const struct call *_Atomic call;
  _Atomic int rows;
  _Atomic int samples;
  _Atomic uint32_t launch __attribute__((aligned(CACHE_LINE)));
  _Atomic uint32_t sleepers;
  /* The last stage that is complete, and how often that changed. */
  _Atomic uint64_t completed __attribute__((aligned(CACHE_LINE)));
  _Atomic uint32_t progress;
  /* Launch, and the iteration (from 1) after which its loop over tokens ended, in the upper and lower 32 bits. */
  _Atomic uint64_t last_iteration;
  /* Stage and number of chunks: done by all, and taken from each worker's part. */
  struct aligned_word done;
  struct aligned_word taken[ENGINE_MAX_WORKERS];
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
  for (const uint64_t start = now_ns(); now_ns() - start < ENGINE_YIELD_NS; sched_yield())
    if (atomic_load_explicit(word, memory_order_acquire) != value) return;
  atomic_fetch_add(&e->sleepers, 1);
  while (atomic_load(word) == value) sleep_while(word, value);
  atomic_fetch_sub(&e->sleepers, 1);
}

/* After *word has changed. A worker counts itself as a sleeper before it looks at the word for the last time. */
static void wake_sleepers(struct engine *e, _Atomic uint32_t *word) {
  if (atomic_load(&e->sleepers) != 0) wake_all(word);
}

struct range {
  int begin, end;
};

static inline void begin_stage(struct worker *me, int chunks) {
  me->chunks = chunks;
  me->done = -1;
}

/* Takes a chunk of the stage that this worker is in; false where none is left. The one before it is done. */
static inline bool claim(struct worker *me) {
  struct engine *e = me->engine;
  const int chunks = me->chunks;
  me->done++;
  for (int i = 0; i < e->threads; ++i) {
    const int owner = me->index + i < e->threads ? me->index + i : me->index + i - e->threads;
    const int begin = chunks * owner / e->threads, end = chunks * (owner + 1) / e->threads;
    _Atomic uint64_t *taken = &e->taken[owner].value;
    uint64_t word = atomic_load_explicit(taken, memory_order_relaxed);
    for (;;) {
      if (word >> CHUNK_BITS > me->stage) return false;
      /* What was taken in earlier stages says nothing about this one. */
      const int next = word >> CHUNK_BITS == me->stage ? (int)(word & ((1 << CHUNK_BITS) - 1)) : 0;
      if (begin + next >= end) break;
      if (atomic_compare_exchange_weak_explicit(taken, &word, me->stage << CHUNK_BITS | (uint64_t)(next + 1),
                                                memory_order_relaxed, memory_order_relaxed)) {
        me->chunk = begin + next;
        return true;
      }
    }
  }
  return false;
}

/* Adds this worker's chunks to what is done; true for the worker that makes the stage complete. */
static inline bool completes(struct worker *me) {
  if (me->done == 0) return false;
  _Atomic uint64_t *done = &me->engine->done.value;
  uint64_t word = atomic_load_explicit(done, memory_order_relaxed), sum;
  do {
    sum = (word >> CHUNK_BITS == me->stage ? word & ((1 << CHUNK_BITS) - 1) : 0) + (uint64_t)me->done;
  } while (!atomic_compare_exchange_weak_explicit(done, &word, me->stage << CHUNK_BITS | sum, memory_order_acq_rel,
                                                  memory_order_relaxed));
  return sum == (uint64_t)me->chunks;
}

/* Of the matrix that is read next, the first `bytes` of this worker's part. */
static inline void stream_ahead(struct worker *me, const void *matrix, uint64_t matrix_bytes, uint64_t bytes) {
  const uint64_t part = matrix_bytes / (uint64_t)me->engine->threads;
  me->ahead = (const uint8_t *)matrix + part * (uint64_t)me->index;
  me->ahead_end = me->ahead + (bytes < part ? bytes : part);
}

static inline bool is_complete(struct worker *me) {
  return atomic_load_explicit(&me->engine->completed, memory_order_acquire) >= me->stage;
}

static void complete(struct worker *me) {
  struct engine *e = me->engine;
  e->barriers++;
  atomic_store_explicit(&e->completed, me->stage, memory_order_release);
  /* The next stage may be complete before this: the count only ever grows. */
  atomic_fetch_add(&e->progress, 1);
  wake_sleepers(e, &e->progress);
}

static void wait_until_complete(struct worker *me) {
  /* Short waits are not timed: reading the clock would cost as much as they do. */
  for (int spin = 0; spin < 64; ++spin) {
    if (is_complete(me)) return;
    pause_briefly();
  }
  struct engine *e = me->engine;
  const uint64_t start = now_ns();
  for (; me->ahead < me->ahead_end && !is_complete(me); me->ahead += CACHE_LINE) __builtin_prefetch(me->ahead, 0, 2);
  for (;;) {
    const uint32_t progress = atomic_load(&e->progress);
    if (is_complete(me)) break;
    wait_for_change(e, &e->progress, progress);
  }
  const uint64_t before = atomic_load_explicit(&me->wait_ns, memory_order_relaxed);
  atomic_store_explicit(&me->wait_ns, before + now_ns() - start, memory_order_relaxed);
}

/* The end of a stage: all of it is done, and visible. */
static inline void hand_off(struct worker *me) {
  if (me->engine->threads == 1) me->engine->barriers++;
  else if (completes(me)) complete(me);
  else if (!is_complete(me)) wait_until_complete(me);
  me->stage++;
}

/* The same at the end of an iteration that may be the last: when no element is 0, or the host asks to stop. */
static inline void hand_off_until(struct worker *me, const int32_t *until, int elements, int iteration) {
  struct engine *e = me->engine;
  const uint64_t this_one = (uint64_t)me->launch << 32 | (uint32_t)iteration;
  if (completes(me)) {
    bool all = true;
    for (int i = 0; i < elements; ++i) all = all && until[i] != 0;
    if (all || atomic_load_explicit(&e->aborted, memory_order_relaxed))
      atomic_store_explicit(&e->last_iteration, this_one, memory_order_relaxed);
    complete(me);
  } else if (!is_complete(me)) {
    wait_until_complete(me);
  }
  me->stage++;
  const uint64_t end = atomic_load_explicit(&e->last_iteration, memory_order_relaxed);
  /* A later launch has ended its loop: so has this one, long ago. */
  me->last_iteration = end == this_one || end >> 32 > me->launch;
}

/* Chunks of a stage that is divided by features, or by key/value head. */
static inline int feature_chunks(const struct worker *me) {
  return me->engine->threads == 1 ? 1 : me->engine->threads * CHUNKS_PER_WORKER;
}
static inline int head_chunks(const struct worker *me, int heads) {
  const int chunks = feature_chunks(me);
  return chunks < heads ? chunks : heads;
}

/* The chunk's part of `count` units. */
static inline struct range part_of(const struct worker *me, int count) {
  return (struct range){(int)((int64_t)count * me->chunk / me->chunks),
                        (int)((int64_t)count * (me->chunk + 1) / me->chunks)};
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

/* Runs the call of launch number `launch` on this worker; false if it is being replaced, or was. */
static bool run_launch(struct worker *me, uint32_t launch) {
  struct engine *e = me->engine;
  const struct call *call = atomic_load_explicit(&e->call, memory_order_acquire);
  me->rows = atomic_load_explicit(&e->rows, memory_order_acquire);
  me->samples = atomic_load_explicit(&e->samples, memory_order_acquire);
  if (launch % 2 != 0 || atomic_load_explicit(&e->launch, memory_order_relaxed) != launch) return false;
  me->launch = launch;
  me->stage = (uint64_t)(launch / 2) << STAGE_BITS;
  call->kernel(me, call->arguments);
  return true;
}

/* Reads this worker's part of every matrix, the one that it will read in kernels: memory is near to who touches it first. */
static void load_part(struct worker *me) {
  struct loading *loading = me->engine->loading;
  const uint64_t index = (uint64_t)me->index, threads = (uint64_t)me->engine->threads;
  for (int i = 0; i < loading->count; ++i) {
    const uint64_t offset = (uint64_t)loading->spans[i].offset, bytes = (uint64_t)loading->spans[i].bytes;
    /* Not `bytes * index`, which might overflow. */
    const uint64_t part = bytes / threads, begin = offset + part * index;
    const uint64_t end = index + 1 == threads ? offset + bytes : begin + part;
    for (uint64_t at = begin; at < end;) {
      const ssize_t count = pread(loading->file, loading->to + at, end - at, (off_t)at);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) atomic_store(&loading->failed, count < 0 ? errno : EIO);
      if (count <= 0) break;
      at += (uint64_t)count;
    }
  }
  atomic_fetch_sub(&loading->remaining, 1);
}

/* This thread runs on that processor only, from now on. Where that is refused it runs as before. */
static void stay_on(int processor) {
#if defined(__linux__)
  enum { BITS = 8 * sizeof(unsigned long), MOST = 8192 };
  unsigned long mask[MOST / BITS] = {0};
  if (processor < 0 || processor >= MOST) return;
  mask[processor / BITS] = 1ul << (processor % BITS);
  syscall(SYS_sched_setaffinity, 0, sizeof mask, mask);
#else
  (void)processor;
#endif
}

static void *worker_main(void *argument_) {
  struct worker *me = argument_;
  struct engine *e = me->engine;
  stay_on(me->processor);
  if (e->loading) load_part(me);
  for (;;) {
    wait_for_change(e, &e->launch, me->launch);
    if (atomic_load(&e->closing)) return NULL;
    if (!run_launch(me, atomic_load_explicit(&e->launch, memory_order_acquire))) pause_briefly();
  }
}

/* Asks for large pages, which need far fewer entries of the address cache and are read ahead over their whole length. */
static void prefer_large_pages(void *memory, uint64_t bytes) {
#if defined(MADV_HUGEPAGE)
  madvise(memory, bytes, MADV_HUGEPAGE);
#else
  (void)memory, (void)bytes;
#endif
}

/* Pages come when they are touched. */
static void *map_memory(uint64_t bytes) {
  void *memory = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? NULL : memory;
}

/* The packed file, open; -1 with a reason where it cannot be read or is too short. */
static int open_weights(const char *path, uint64_t bytes, char *error, size_t error_size) {
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (file >= 0 && fstat(file, &status) == 0 && (uint64_t)status.st_size >= bytes) return file;
  snprintf(error, error_size, "cannot read %llu bytes of packed weights: %s", (unsigned long long)bytes,
           file < 0 ? strerror(errno) : "the file is too short");
  if (file >= 0) close(file);
  return -1;
}

static bool map_weights(struct engine *e, int file, char *error, size_t error_size) {
  int flags = MAP_SHARED;
#if defined(MAP_POPULATE)
  flags |= MAP_POPULATE;
#endif
  e->weights_area_bytes = e->weight_bytes ? e->weight_bytes : 1;
  void *weights = mmap(NULL, e->weights_area_bytes, PROT_READ, flags, file, 0);
  if (weights == MAP_FAILED) {
    snprintf(error, error_size, "cannot map the packed weights: %s", strerror(errno));
    return false;
  }
  e->weights = e->weights_area = weights;
  return true;
}

/* Room for the weights in large pages; false where there is none. */
static bool allocate_weights(struct engine *e) {
  const uint64_t page = (uint64_t)2 << 20;
  e->weights_area_bytes = e->weight_bytes + page;
  void *area = mmap(NULL, e->weights_area_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (area == MAP_FAILED) return false;
  prefer_large_pages(area, e->weights_area_bytes);
  e->weights_area = area;
  e->weights = (uint8_t *)(((uintptr_t)area + page - 1) & ~(uintptr_t)(page - 1));
  return true;
}

static void engine_free(struct engine *e) {
  if (e->weights_area) munmap(e->weights_area, e->weights_area_bytes);
  if (e->arena) munmap(e->arena, e->arena_bytes ? e->arena_bytes : 1);
  if (e->own) munmap(e->own, e->own_bytes * (uint64_t)e->threads + 1);
  free(e);
}

static void engine_stop_workers(struct engine *e, int started) {
  atomic_store(&e->closing, 1);
  atomic_fetch_add(&e->launch, 1);
  wake_sleepers(e, &e->launch);
  for (int i = 1; i < started; ++i) pthread_join(e->workers[i].thread, NULL);
}

/* The first worker is the thread that calls. `processors`: one for each worker; NULL where they are not pinned. */
static bool start_workers(struct engine *e, const int32_t *processors, char *error, size_t error_size) {
  for (int i = 0; i < e->threads; ++i) {
    e->workers[i] = (struct worker){
        .engine = e,
        .index = i,
        .processor = processors ? processors[i] : -1,
        .own = e->own + e->own_bytes * (uint64_t)i,
    };
    if (i == 0) stay_on(e->workers[i].processor);
    if (i > 0 && pthread_create(&e->workers[i].thread, NULL, worker_main, &e->workers[i]) != 0) {
      snprintf(error, error_size, "cannot start worker thread %d of %d", i, e->threads);
      engine_stop_workers(e, i);
      return false;
    }
  }
  return true;
}

/* The first worker's part, and the others' end. */
static bool finish_loading(struct engine *e, char *error, size_t error_size) {
  load_part(&e->workers[0]);
  const struct timespec moment = {0, 100000};
  while (atomic_load(&e->loading->remaining) > 0) nanosleep(&moment, NULL);
  const int failed = atomic_load(&e->loading->failed);
  if (failed == 0) return true;
  snprintf(error, error_size, "cannot read the packed weights: %s", strerror(failed));
  engine_stop_workers(e, e->threads);
  return false;
}

static struct engine *engine_allocate(int threads, uint64_t arena_bytes, bool large_pages, uint64_t own_bytes,
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
  if (e->arena && large_pages) prefer_large_pages(e->arena, arena_bytes);
  e->own = map_memory(own_bytes * (uint64_t)e->threads + 1);
  if (e->arena && e->own) return e;
  snprintf(error, error_size, "out of memory: %llu bytes for activations and KV cache",
           (unsigned long long)(arena_bytes + own_bytes * (uint64_t)e->threads));
  engine_free(e);
  return NULL;
}

/* With spans the weights are copied into memory of their own where there is room, without they stay in their file. */
static bool engine_start(struct engine *e, const char *path, const int32_t *processors, const struct span *spans,
                         int count, char *error, size_t error_size) {
  const int file = open_weights(path, e->weight_bytes, error, error_size);
  if (file < 0) return false;
  struct loading loading = {.file = file, .spans = spans, .count = count};
  bool started;
  if (count > 0 && allocate_weights(e)) {
    loading.to = (uint8_t *)(uintptr_t)e->weights;
    atomic_store(&loading.remaining, e->threads);
    e->loading = &loading;
    started = start_workers(e, processors, error, error_size) && finish_loading(e, error, error_size);
    e->loading = NULL;
  } else {
    started = map_weights(e, file, error, error_size) && start_workers(e, processors, error, error_size);
  }
  close(file);
  return started;
}

/* One kernel call: returns when all its stages are complete, whoever ran them. */
static void engine_launch(struct engine *e, const struct call *call, int rows, int samples) {
  const uint32_t launch = atomic_load_explicit(&e->launch, memory_order_relaxed);
  /* Workers that are late may read these while they change: who sees one of them sees the odd number, too. */
  atomic_store_explicit(&e->launch, launch + 1, memory_order_relaxed);
  atomic_store_explicit(&e->call, call, memory_order_release);
  atomic_store_explicit(&e->rows, rows, memory_order_release);
  atomic_store_explicit(&e->samples, samples, memory_order_release);
  e->kernel_calls++;
  atomic_store(&e->launch, launch + 2);
  wake_sleepers(e, &e->launch);
  run_launch(&e->workers[0], launch + 2);
}

static void engine_close(struct engine *e) {
  engine_stop_workers(e, e->threads);
  engine_free(e);
}
