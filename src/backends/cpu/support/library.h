/* What the host calls. Included last in a generated file, after `programs`, `KLOOP_*` sizes and the kernels. */
#pragma once
#include "engine.h"

#define EXPORT __attribute__((visibility("default")))

/*
 * NULL on failure, with the reason in `error`. `processors`: one for each thread, to stay on; NULL where they move freely.
 * `spans`: offset and bytes of every matrix that is to be copied. `large_pages`: of the arena.
 */
EXPORT void *kloop_open(const char *weights_path, int threads, const int32_t *processors, const double *spans,
                        int span_count, int large_pages, char *error, int error_size) {
  struct engine *e = engine_allocate(threads, KLOOP_ARENA_BYTES, large_pages, KLOOP_OWN_BYTES, KLOOP_WEIGHT_BYTES, error,
                                     (size_t)error_size);
  if (!e) return NULL;
  if (engine_start(e, weights_path, processors, (const struct span *)spans, span_count, error, (size_t)error_size)) return e;
  engine_free(e);
  return NULL;
}

/* Where the weights are: KLOOP_WEIGHT_BYTES of them. */
EXPORT const void *kloop_weights(void *engine) { return ((struct engine *)engine)->weights; }

EXPORT void kloop_close(void *engine) { engine_close(engine); }

/* One kernel call. */
EXPORT void kloop_launch(void *engine, int program, int call, int rows, int samples) {
  engine_launch(engine, programs[program] + call, rows, samples);
}

EXPORT void kloop_write(void *engine, double offset, const void *from, double bytes) {
  memcpy(((struct engine *)engine)->arena + (uint64_t)offset, from, (size_t)bytes);
}

EXPORT void kloop_read(void *engine, double offset, void *to, double bytes) {
  memcpy(to, ((struct engine *)engine)->arena + (uint64_t)offset, (size_t)bytes);
}

EXPORT void kloop_clear(void *engine, double offset, double bytes) {
  memset(((struct engine *)engine)->arena + (uint64_t)offset, 0, (size_t)bytes);
}

/* From any thread: loops over tokens end after the token they are at. */
EXPORT void kloop_abort(void *engine, int aborted) {
  atomic_store(&((struct engine *)engine)->aborted, aborted);
}

/* kernel calls, barriers, bytes read, nanoseconds waited; between calls. */
EXPORT void kloop_counters(void *engine, double *counters) {
  const struct engine *e = engine;
  counters[0] = (double)e->kernel_calls;
  counters[1] = (double)e->barriers;
  counters[2] = counters[3] = 0;
  for (int i = 0; i < e->threads; ++i) {
    counters[2] += (double)e->workers[i].bytes_read;
    counters[3] += (double)atomic_load_explicit(&e->workers[i].wait_ns, memory_order_relaxed);
  }
}
