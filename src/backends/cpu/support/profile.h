/*
 * Where time goes, as the first worker sees it: from the end of one stage to the end of the next, waiting included. Only in
 * programs that were emitted for it.
 */
#pragma once
#include "engine.h"

#define PROFILE_STAGES 1024

static struct {
  uint64_t last;
  double nanoseconds[PROFILE_STAGES];
  double count[PROFILE_STAGES];
} profile;

/* Between kernel calls nothing is counted. */
static inline void profile_begin(const struct worker *me) {
  if (me->index == 0) profile.last = now_ns();
}

static inline void profile_stage(const struct worker *me, int stage) {
  if (me->index != 0) return;
  const uint64_t now = now_ns();
  profile.nanoseconds[stage] += (double)(now - profile.last);
  profile.count[stage] += 1;
  profile.last = now;
}

/* Of the first `stages` stages, since the library was loaded; between calls. */
__attribute__((visibility("default"))) void kloop_profile(double *nanoseconds, double *count, int stages) {
  memcpy(nanoseconds, profile.nanoseconds, sizeof(double) * (size_t)stages);
  memcpy(count, profile.count, sizeof(double) * (size_t)stages);
}
