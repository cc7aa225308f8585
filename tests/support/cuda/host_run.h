/* Comes behind a generated source: how the stand-in of the driver runs one of its kernels. */
#pragma once

struct host_call {
  void (*kernel)(const struct launch);
  struct launch at;
};

static void call_kernel(const void *call) {
  const struct host_call *c = (const struct host_call *)call;
  c->kernel(c->at);
}

/*
 * 0: ended; 1: the kernel trapped; 2: nothing could go on, and `error` says who waited for what.
 * `earlier`, where there is one, runs the kernels that this one has begun before; see run_grid.
 */
extern "C" __attribute__((visibility("default"))) int kloop_run(void *kernel, const void *launch, int blocks, int threads,
                                                                int shared_bytes, uint64_t seed, int fault,
                                                                bool (*earlier)(void *), void *context, char *error,
                                                                int error_size) {
  struct host_call call;
  memcpy(&call.kernel, &kernel, sizeof kernel);
  memcpy(&call.at, launch, sizeof call.at);
  error[0] = 0;
  return shim::run_grid(call_kernel, &call, blocks, threads, shared_bytes, seed, (shim::fault)fault, {earlier, context},
                        error, (size_t)error_size);
}

extern "C" __attribute__((visibility("default"))) int kloop_sizes(int *launch, int *counters, int *mailbox, int *shared) {
  *launch = (int)sizeof(struct launch);
  *counters = (int)sizeof(struct counters);
  *mailbox = (int)sizeof(struct mailbox);
  *shared = SHARED_BYTES;
  return 0;
}
