/*
 * All that kernels ask of the machine: who am I, wait for each other, hand something to another block, copy in the
 * background. Everything else in this folder is plain C++ over these few names, so that the same kernels run on a processor
 * where another file defines them (tests/support/host_shim.h).
 *
 * Blocks talk through global memory with release and acquire; threads of a block through shared memory and barriers. The
 * compute warps have a barrier of their own (1), since the warp that fetches weights never waits for them there.
 */
#pragma once
#if defined(__CUDACC_RTC__)
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include <stdint.h>
#endif

#define DEVICE static __device__ __forceinline__
#define DEVICE_MEMBER static __device__ __forceinline__
#define DEVICE_CALL static __device__ __noinline__
#define DEVICE_TABLE static __device__ const
#define KERNEL extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1)
/* Without the warp that fetches weights; its blocks find registers beside those of another kernel. */
#define LIGHT_KERNEL extern "C" __global__ void __launch_bounds__(COMPUTE_THREADS, 4)
#define INFINITY_F __int_as_float(0x7f800000)

/* A barrier of the block on which bytes that are copied in the background can be waited for. */
typedef uint64_t copy_barrier;

struct alignas(16) vec16 {
  uint32_t word[4];
};
struct alignas(8) vec8 {
  uint32_t word[2];
};

DEVICE int thread_index() { return (int)threadIdx.x; }
DEVICE int block_index() { return (int)blockIdx.x; }
DEVICE int block_count() { return (int)gridDim.x; }

DEVICE uint8_t *shared_memory() {
  extern __shared__ __align__(128) uint8_t dynamic_shared_memory[];
  return dynamic_shared_memory;
}

DEVICE void block_sync() { __syncthreads(); }
DEVICE void compute_sync() { asm volatile("bar.sync 1, %0;" ::"n"(COMPUTE_THREADS) : "memory"); }
DEVICE void warp_sync() { __syncwarp(); }
/* What the first lane of the warp gives. */
DEVICE uint32_t of_first_lane(uint32_t value) { return __shfl_sync(0xffffffffu, value, 0); }
DEVICE float shuffle_xor(float value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }

/*
 * Kernels that begin before the one before them has ended, where the machine has that and the launch allows it. The first
 * lets the kernel after this one begin as soon as all blocks have called it or have ended. The second waits until the kernel
 * before this one has ended and all it wrote is there; every kernel calls it, so that this holds for all that came earlier.
 */
DEVICE void launch_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
DEVICE void wait_for_prerequisites() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

DEVICE uint32_t load_acquire(const uint32_t *p) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(p) : "memory");
  return value;
}
DEVICE void add_release(uint32_t *p, uint32_t value) {
  asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
DEVICE uint32_t add_acquire_release(uint32_t *p, uint32_t value) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.add.u32 %0, [%1], %2;" : "=r"(before) : "l"(p), "r"(value) : "memory");
  return before;
}
DEVICE void add_counter(uint64_t *p, uint64_t value) { atomicAdd((unsigned long long *)p, (unsigned long long)value); }
/* In shared memory. */
DEVICE void add_shared(uint64_t *p, uint64_t value) { atomicAdd((unsigned long long *)p, (unsigned long long)value); }
DEVICE uint32_t load_shared(const uint32_t *p) { return *(const volatile uint32_t *)p; }
DEVICE void store_shared(uint32_t *p, uint32_t value) { *(volatile uint32_t *)p = value; }
/* In global memory, among the threads of one block. */
DEVICE void store_count(uint32_t *p, uint32_t value) { *(volatile uint32_t *)p = value; }
DEVICE void add_count(uint32_t *p) { atomicAdd(p, 1u); }
/* Its count for the thread that comes first, 0 for the others. */
DEVICE uint32_t take_count(uint32_t *p) { return atomicExch(p, 0u); }
/* Several threads may store the same value. */
DEVICE void store_same(float *p, float value) { *(volatile float *)p = value; }

/* Memory of the host, which looks at it while the kernel runs. */
DEVICE int32_t load_host(const int32_t *p) { return *(const volatile int32_t *)p; }
DEVICE void store_host(int32_t *p, int32_t value) {
  *(volatile int32_t *)p = value;
  __threadfence_system();
}
/* The host sees it in a while; nothing else is ordered by it. */
DEVICE void show_host(int32_t *p, int32_t value) {
  asm volatile("st.relaxed.sys.global.s32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
}
DEVICE uint32_t exchange_host(int32_t *p, int32_t value) { return (uint32_t)atomicExch_system(p, value); }

DEVICE uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return now;
}
/* While a thread waits in a loop. `what` is for those who watch. */
DEVICE void relax(const char *what) { (void)what; }
DEVICE void trap() { asm volatile("trap;"); }

DEVICE float bits_to_float(uint32_t bits) { return __uint_as_float(bits); }
DEVICE uint32_t float_to_bits(float value) { return __float_as_uint(value); }

DEVICE float half_to_float(uint16_t bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}
/* sum + the products of four bytes with sign. */
DEVICE int dot_of_bytes(uint32_t a, uint32_t b, int sum) { return __dp4a((int)a, (int)b, sum); }

/* Rounded to nearest, ties to even; `low` in the lower half. */
DEVICE uint32_t two_bf16(float low, float high) {
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
}

/*
 * Tensor cores: sums[16][8] += a[16][k] . b[k][8], by a whole warp. What lies where is said in the PTX ISA, "Matrix Fragments
 * for mma.m16n8k16" and "m16n8k32"; with g = lane / 4, t = lane % 4, and words of 32 bits (two bf16, four int8) along k:
 *   a = {[g][t], [g + 8][t], [g][t + 4], [g + 8][t + 4]}    b = {[t][g], [t + 4][g]}
 *   sums = {[g][2t], [g][2t + 1], [g + 8][2t], [g + 8][2t + 1]}
 */
DEVICE void mma_bf16(float sums[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_int8(int32_t sums[4], const uint32_t a[4], const uint32_t b[2]) {
  asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(sums[0]), "+r"(sums[1]), "+r"(sums[2]), "+r"(sums[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

DEVICE uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

DEVICE void barrier_init(copy_barrier *barrier, int arrivals) {
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
DEVICE void barrier_arrive(copy_barrier *barrier) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(shared_address(barrier)) : "memory");
}
/* May wait for a microsecond, so that whoever asks can look at other things as well. */
DEVICE bool barrier_passed(copy_barrier *barrier, uint32_t parity) {
  uint32_t passed;
#if __CUDA_ARCH__ >= 900
  asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], %2, %3; selp.u32 %0, 1, 0, p; }"
               : "=r"(passed)
               : "r"(shared_address(barrier)), "r"(parity), "r"(1000u)
               : "memory");
#else
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(passed)
               : "r"(shared_address(barrier)), "r"(parity)
               : "memory");
#endif
  return passed != 0;
}
/* After barriers were initialized, before anybody uses them. */
DEVICE void barriers_ready() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
  __syncthreads();
}

/*
 * Copies from global to shared memory in the background; `barrier` passes when all bytes have come. A whole warp calls this,
 * with COPY_ARRIVALS as the number of arrivals of the barrier. Addresses and bytes are multiples of 16.
 */
#if __CUDA_ARCH__ >= 900
#define COPY_ARRIVALS 1
DEVICE void copy_async(uint8_t *to, const uint8_t *from, int bytes, copy_barrier *barrier) {
  if (thread_index() % 32 != 0) return;
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   shared_address(to)),
               "l"(from), "r"(bytes), "r"(shared_address(barrier))
               : "memory");
}
#else
#define COPY_ARRIVALS 32
DEVICE void copy_async(uint8_t *to, const uint8_t *from, int bytes, copy_barrier *barrier) {
  for (int at = thread_index() % 32 * 16; at < bytes; at += 512)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to + at)), "l"(from + at) : "memory");
  asm volatile("cp.async.mbarrier.arrive.noinc.shared.b64 [%0];" ::"r"(shared_address(barrier)) : "memory");
}
#endif
