/*
 * Read bandwidth of memory, as kernels see it: threads read their parts of a buffer, far larger than the caches and once
 * for the roofline that `bench` and `doctor` print, smaller and again and again for what the caches give.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include KLOOP_SIMD

#define EXPORT __attribute__((visibility("default")))

struct part {
  const float *begin, *end;
  int passes;
  float sum;
};

static void *read_part(void *argument) {
  struct part *part = argument;
  v16 sums[4] = {v16_zero(), v16_zero(), v16_zero(), v16_zero()};
  for (int pass = 0; pass < part->passes; ++pass) {
    for (const float *p = part->begin; p < part->end; p += 64)
      for (int i = 0; i < 4; ++i) sums[i] = v16_max(sums[i], v16_load(p + 16 * i));
    /* Every pass reads anew. */
    __asm__ volatile("" ::: "memory");
  }
  part->sum = v16_sum(v16_max(v16_max(sums[0], sums[1]), v16_max(sums[2], sums[3])));
  return NULL;
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A buffer to measure with, touched once; NULL where there is not enough memory. */
EXPORT void *kloop_bandwidth_buffer(double bytes) {
  void *buffer = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (buffer == MAP_FAILED) return NULL;
#if defined(MADV_HUGEPAGE)
  madvise(buffer, (size_t)bytes, MADV_HUGEPAGE);
#endif
  memset(buffer, 1, (size_t)bytes);
  return buffer;
}

EXPORT void kloop_bandwidth_free(void *buffer, double bytes) { munmap(buffer, (size_t)bytes); }

/* Bytes per second of `passes` over the buffer by `threads` threads, of which each reads its own part. */
EXPORT double kloop_bandwidth(const void *buffer, double bytes, int threads, int passes) {
  struct part parts[256];
  pthread_t handles[256];
  if (threads < 1) threads = 1;
  if (threads > 256) threads = 256;
  const size_t share = (size_t)bytes / sizeof(float) / (size_t)threads / 64 * 64;
  const float *start = buffer;
  const double before = seconds();
  int started = 1;
  for (int i = 0; i < threads; ++i) parts[i] = (struct part){start + share * (size_t)i, start + share * (size_t)(i + 1), passes, 0};
  while (started < threads && pthread_create(&handles[started], NULL, read_part, &parts[started]) == 0) started++;
  read_part(&parts[0]);
  for (int i = 1; i < started; ++i) pthread_join(handles[i], NULL);
  return (double)(share * sizeof(float)) * started * passes / (seconds() - before);
}
