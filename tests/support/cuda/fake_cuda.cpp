/*
 * Stands in for the CUDA driver (libcuda): the calls that the backend makes, over the memory of this process. An image is a
 * shared library made of the generated source and host_shim.h. A cooperative launch runs its kernel on a thread of its own,
 * while the host goes on; whatever else is put on the stream waits for it there and then.
 *
 * Which machine it claims to drive is linked to it (fake-driver.ts): one without a device, an old one, one with little
 * memory, or one whose kernels wait for what never comes.
 */
#include <dlfcn.h>
#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

/* As machineSource of fake-driver.ts writes it. */
extern "C" const struct fake_machine {
  uint64_t devices, major, minor, multiprocessors, free_bytes;
  /* The largest piece of memory that can be had. */
  uint64_t largest_piece;
  /* What goes wrong in cooperative launches, as host_shim.h has it: 1: a block never runs, 2: copies never land; and 3: graphs. */
  uint64_t fault;
  uint64_t shared_bytes, cooperative;
} machine;

#define API extern "C" __attribute__((visibility("default"))) int
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_FOUND = 500, NOT_SUPPORTED = 801, NOT_READY = 600, ILLEGAL_INSTRUCTION = 715, STUCK = 999 };

typedef int (*run_function)(void *, const void *, int, int, int, uint64_t, int, bool (*)(void *), void *, char *, int);

struct module {
  void *library;
  run_function run;
};
struct kernel {
  module *home;
  void *entry;
};

/* Engines call from threads of their own: one may free while another one allocates. */
static std::mutex books;
static std::map<void *, uint64_t> sizes;
static uint64_t taken;
static std::atomic<uint64_t> launches;
/* Launches that were captured, and those of them that may begin before the one ahead of them has ended. */
static std::atomic<int> captured, captured_early;
/* Contexts, modules, streams and graphs that nobody has given back. */
static std::atomic<int> held;
static std::atomic<int> sticky;
static char last_error[1024] = "an error of the stand-in";

API cuInit(unsigned) { return SUCCESS; }
API cuGetErrorName(int error, const char **name) {
  *name = error == OUT_OF_MEMORY ? "CUDA_ERROR_OUT_OF_MEMORY" : error == ILLEGAL_INSTRUCTION ? "CUDA_ERROR_ILLEGAL_INSTRUCTION" : "CUDA_ERROR";
  return SUCCESS;
}
API cuGetErrorString(int, const char **text) {
  *text = last_error;
  return SUCCESS;
}
API cuDriverGetVersion(int *version) {
  *version = 13000;
  return SUCCESS;
}
API cuDeviceGetCount(int *count) {
  *count = (int)machine.devices;
  return SUCCESS;
}
API cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return (uint64_t)ordinal < machine.devices ? SUCCESS : INVALID_VALUE;
}
API cuDeviceGetName(char *name, int length, int) {
  snprintf(name, (size_t)length, "a processor in disguise");
  return SUCCESS;
}
API cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
    case 16: *value = (int)machine.multiprocessors; return SUCCESS;
    case 75: *value = (int)machine.major; return SUCCESS;
    case 76: *value = (int)machine.minor; return SUCCESS;
    case 95: *value = (int)machine.cooperative; return SUCCESS;
    case 97: *value = (int)machine.shared_bytes; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
API cuDevicePrimaryCtxRetain(void **context, int) {
  *context = (void *)&sizes;
  held++;
  return SUCCESS;
}
API cuDevicePrimaryCtxRelease_v2(int) {
  held--;
  return SUCCESS;
}
API cuCtxSetCurrent(void *) { return SUCCESS; }
API cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  const std::lock_guard<std::mutex> lock(books);
  *free_bytes = machine.free_bytes - taken;
  *total = machine.free_bytes;
  return SUCCESS;
}
/* Not zero, as on a device: what is read before it is written shows. */
API cuMemAlloc_v2(void **address, size_t bytes) {
  const std::lock_guard<std::mutex> lock(books);
  if (taken + bytes > machine.free_bytes || bytes > machine.largest_piece) return OUT_OF_MEMORY;
  *address = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(*address, 0xa5, bytes);
  sizes[*address] = bytes;
  taken += bytes;
  return SUCCESS;
}
API cuMemFree_v2(void *address) {
  const std::lock_guard<std::mutex> lock(books);
  const auto found = sizes.find(address);
  if (found == sizes.end()) return INVALID_VALUE;
  taken -= found->second;
  sizes.erase(found);
  free(address);
  /* A context that a fault has ended answers nothing else. */
  return sticky;
}
API cuMemHostAlloc(void **address, size_t bytes, unsigned) { return cuMemAlloc_v2(address, bytes); }
API cuMemFreeHost(void *address) { return cuMemFree_v2(address); }
API cuMemHostGetDevicePointer_v2(void **device, void *host, unsigned) {
  *device = host;
  return SUCCESS;
}
struct stream {
  std::thread running;
  std::atomic<bool> busy{false};
};
/* Of everything before it on the stream. */
static int wait_for(stream *on) {
  if (on->running.joinable()) on->running.join();
  return sticky;
}

API cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, stream *on) {
  wait_for(on);
  memcpy(to, from, bytes);
  return sticky;
}
API cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, stream *on) {
  wait_for(on);
  memcpy(to, from, bytes);
  return sticky;
}
API cuMemsetD8Async(void *to, uint8_t value, size_t count, stream *on) {
  wait_for(on);
  memset(to, value, count);
  return sticky;
}
API cuMemsetD32Async(uint32_t *to, uint32_t value, size_t count, stream *on) {
  wait_for(on);
  for (size_t i = 0; i < count; ++i) to[i] = value;
  return sticky;
}
API cuStreamCreate(stream **made, unsigned) {
  *made = new stream;
  held++;
  return SUCCESS;
}
API cuStreamSynchronize(stream *on) { return wait_for(on); }
API cuStreamQuery(stream *on) { return on->busy ? (int)NOT_READY : sticky.load(); }
API cuStreamDestroy_v2(stream *on) {
  wait_for(on);
  delete on;
  held--;
  return SUCCESS;
}

/* Images are ELF files, whose length their headers tell. */
API cuModuleLoadData(void **result, const void *image) {
  const Elf64_Ehdr *elf = (const Elf64_Ehdr *)image;
  if (memcmp(elf->e_ident, ELFMAG, SELFMAG) != 0) return INVALID_VALUE;
  const size_t bytes = elf->e_shoff + (size_t)elf->e_shentsize * elf->e_shnum;
  char path[] = "/tmp/fake-cuda-XXXXXX";
  const int file = mkstemp(path);
  if (file < 0 || write(file, image, bytes) != (ssize_t)bytes) return INVALID_VALUE;
  close(file);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  unlink(path);
  if (!library) {
    snprintf(last_error, sizeof last_error, "%s", dlerror());
    return INVALID_VALUE;
  }
  held++;
  *result = new module{library, (run_function)dlsym(library, "kloop_run")};
  return SUCCESS;
}
API cuModuleUnload(module *loaded) {
  dlclose(loaded->library);
  held--;
  delete loaded;
  return SUCCESS;
}
API cuModuleGetFunction(kernel **function, module *home, const char *name) {
  void *entry = dlsym(home->library, name);
  if (!entry) return NOT_FOUND;
  *function = new kernel{home, entry};
  return SUCCESS;
}
API cuFuncSetAttribute(kernel *, int, int) { return SUCCESS; }

/* A launch that is to be repeated. */
struct node {
  kernel *function;
  int blocks, threads, shared;
  bool is_early;
  unsigned char launch[64]; /* struct launch */
};
static thread_local std::vector<node> *capturing;

static void run_node(const node &at, int fault, bool (*earlier)(void *) = nullptr, void *context = nullptr) {
  char error[1024];
  const int outcome = at.function->home->run(at.function->entry, at.launch, at.blocks, at.threads, at.shared, ++launches,
                                             fault, earlier, context, error, sizeof error);
  /* The first trouble counts. */
  if (outcome == 0 || sticky != SUCCESS) return;
  snprintf(last_error, sizeof last_error, "%s", outcome == 1 ? "the kernel trapped" : error);
  sticky = outcome == 1 ? ILLEGAL_INSTRUCTION : STUCK;
}

/* A launch with these parameters; true where it is captured, and not to be run now. */
static bool is_captured(node &made, void **params) {
  memcpy(made.launch, params[0], sizeof made.launch);
  if (!capturing) return false;
  capturing->push_back(made);
  captured++;
  captured_early += made.is_early;
  return true;
}
API cuLaunchKernel(kernel *function, unsigned gx, unsigned, unsigned, unsigned bx, unsigned, unsigned, unsigned shared, stream *on,
                   void **params, void **) {
  node made = {function, (int)gx, (int)bx, (int)shared, false, {}};
  if (is_captured(made, params)) return SUCCESS;
  if (wait_for(on) != SUCCESS) return sticky;
  run_node(made, 0);
  return SUCCESS;
}
/* As cuda.h has it, with the one attribute that there is here. */
struct launch_attribute {
  int id, padding, value;
  unsigned char rest[60];
};
struct launch_config {
  unsigned gx, gy, gz, bx, by, bz, shared;
  stream *on;
  const launch_attribute *attributes;
  unsigned count;
};
enum { PROGRAMMATIC_STREAM_SERIALIZATION = 6 };
API cuLaunchKernelEx(const launch_config *config, kernel *function, void **params, void **) {
  if (config->count != 1 || config->attributes[0].id != PROGRAMMATIC_STREAM_SERIALIZATION) return INVALID_VALUE;
  if (machine.major < 9) return NOT_SUPPORTED;
  node made = {function, (int)config->gx, (int)config->bx, (int)config->shared, config->attributes[0].value != 0, {}};
  if (is_captured(made, params)) return SUCCESS;
  if (wait_for(config->on) != SUCCESS) return sticky;
  run_node(made, 0);
  return SUCCESS;
}
API fake_held(int *count) {
  *count = held;
  return SUCCESS;
}
API fake_captured(int *all, int *early) {
  *all = captured;
  *early = captured_early;
  return SUCCESS;
}
API cuLaunchCooperativeKernel(kernel *function, unsigned gx, unsigned, unsigned, unsigned bx, unsigned, unsigned,
                              unsigned shared, stream *on, void **params) {
  node made = {function, (int)gx, (int)bx, (int)shared, false, {}};
  if (is_captured(made, params)) return SUCCESS;
  if (wait_for(on) != SUCCESS) return sticky;
  on->busy = true;
  on->running = std::thread([on, made] {
    run_node(made, machine.fault <= 2 ? (int)machine.fault : 0);
    on->busy = false;
  });
  return SUCCESS;
}

API cuStreamBeginCapture_v2(stream *, int) {
  capturing = new std::vector<node>();
  return SUCCESS;
}
API cuStreamEndCapture(void *, std::vector<node> **graph) {
  *graph = capturing;
  capturing = nullptr;
  held++;
  return SUCCESS;
}
API cuGraphInstantiateWithFlags(std::vector<node> **executable, const std::vector<node> *graph, unsigned long long) {
  if (machine.fault == 3) return OUT_OF_MEMORY;
  *executable = new std::vector<node>(*graph);
  held++;
  return SUCCESS;
}
/* The last of some nodes, each of which may begin before the one ahead of it: that one runs when this one waits for it. */
struct chain {
  const node *first, *last;
};
static bool run_chain(void *context) {
  const chain *nodes = (const chain *)context;
  chain before = {nodes->first, nodes->last - 1};
  if (nodes->first == nodes->last) run_node(*nodes->last, 0);
  else run_node(*nodes->last, 0, run_chain, &before);
  return sticky == SUCCESS;
}
/* Kernels that are under way at once, at most: each has its threads in memory. */
enum { MOST_AT_ONCE = 4 };
API cuGraphLaunch(std::vector<node> *executable, stream *on) {
  wait_for(on);
  const node *const end = executable->data() + executable->size();
  for (const node *first = executable->data(); first < end && sticky == SUCCESS;) {
    chain nodes = {first, first};
    while (nodes.last + 1 < end && nodes.last[1].is_early && nodes.last + 1 - first < MOST_AT_ONCE) nodes.last++;
    run_chain(&nodes);
    first = nodes.last + 1;
  }
  return sticky;
}
API cuGraphExecDestroy(std::vector<node> *executable) {
  delete executable;
  held--;
  return SUCCESS;
}
API cuGraphDestroy(std::vector<node> *graph) {
  delete graph;
  held--;
  return SUCCESS;
}
