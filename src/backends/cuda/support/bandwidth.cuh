/* Reads a buffer of `rows` MiB at `weights` once, with the loads of attention; what it finds goes nowhere. */
#pragma once
#include "engine.cuh"

KERNEL read_once(const struct launch launch) {
  const vec16 *from = (const vec16 *)launch.weights;
  const uint64_t count = (uint64_t)launch.rows << 16, stride = (uint64_t)block_count() * BLOCK_THREADS;
  uint32_t found = 0;
#pragma unroll 16
  for (uint64_t i = (uint64_t)(block_index() * BLOCK_THREADS + thread_index()); i < count; i += stride) {
    const vec16 v = from[i];
    found |= v.word[0] ^ v.word[1] ^ v.word[2] ^ v.word[3];
  }
  /* The buffer is all zeros, which the compiler does not know. */
  if (found != 0) *(uint32_t *)launch.arena = found;
}
