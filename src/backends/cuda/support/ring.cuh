/*
 * The stream of weights. One warp of every block walks through the block's part of all weights in the order in which the
 * other warps will use it, over the borders of stages, layers and tokens, and keeps a ring of shared memory full: it waits
 * only for room, never for data. Slice n is in slot n % RING_SLOTS; the barrier `full` of a slot passes when the slice has
 * come, `empty` when all compute warps are done with it.
 *
 * Both sides count slices in the same order; nothing else keeps them together.
 */
#pragma once
#include "engine.cuh"

DEVICE copy_barrier *ring_full(int slot) { return (copy_barrier *)shared_memory() + slot; }
DEVICE copy_barrier *ring_empty(int slot) { return (copy_barrier *)shared_memory() + RING_SLOTS + slot; }
DEVICE uint8_t *ring_slot(int slot) { return shared_memory() + RING_AT + slot * SLICE_BYTES; }

DEVICE void ring_init(const struct worker *me) {
  if (me->thread == 0) {
    for (int slot = 0; slot < RING_SLOTS; ++slot) {
      barrier_init(ring_full(slot), COPY_ARRIVALS);
      barrier_init(ring_empty(slot), COMPUTE_WARPS);
    }
    store_shared(shared_flag(FLAG_STOP), 0);
  }
  barriers_ready();
}

DEVICE void ring_advance(struct worker *me) {
  if (++me->slot < RING_SLOTS) return;
  me->slot = 0;
  me->parity ^= 1;
  me->wrapped = true;
}

/*
 * Fetches a slice when there is room; false where the other warps have ended. Lanes that looked at different times could come to
 * different ends, and would then count slices differently: the first looks for all.
 */
DEVICE bool ring_push(struct worker *me, const uint8_t *from, int bytes) {
  uint32_t stopped = 0;
  if (me->lane == 0) {
    while (!barrier_passed(ring_empty(me->slot), me->parity ^ 1)) {
      stopped = load_shared(shared_flag(FLAG_STOP));
      if (stopped != 0) break;
      relax("room in the ring");
    }
  }
  if (of_first_lane(stopped) != 0) return false;
  /* Where the others fill the slot as well, they must see that it is empty. */
  if (COPY_ARRIVALS > 1) warp_sync();
  copy_async(ring_slot(me->slot), from, bytes, ring_full(me->slot));
  ring_advance(me);
  return true;
}

/* The next slice, for all compute warps. */
DEVICE const uint8_t *ring_take(struct worker *me) {
  uint64_t start = 0;
  for (uint32_t polls = 1; !barrier_passed(ring_full(me->slot), me->parity); ++polls) {
    relax("weights");
    if (polls % 4096 != 0) continue;
    const uint64_t now = nanoseconds();
    if (start == 0) start = now;
    if (now - start > WATCHDOG_NS && me->lane == 0) report_trouble(me, RING_STAGE, (uint32_t)me->slot, RING_SLOTS);
  }
  return ring_slot(me->slot);
}
DEVICE void ring_release(struct worker *me) {
  warp_sync();
  if (me->lane == 0) barrier_arrive(ring_empty(me->slot));
  ring_advance(me);
}

/* Tiles `tiles` of a matrix, in slices of at most slice_bytes. */
DEVICE bool stream_tiles(struct worker *me, const uint8_t *weight, int tile_bytes, int slice_bytes, struct range tiles) {
  for (int tile = tiles.begin; tile < tiles.end; ++tile) {
    const uint8_t *from = weight + (size_t)tile * (size_t)tile_bytes;
    for (int at = 0; at < tile_bytes; at += slice_bytes)
      if (!ring_push(me, from + at, tile_bytes - at < slice_bytes ? tile_bytes - at : slice_bytes)) return false;
  }
  return true;
}

/* The compute warps have ended: the other one fetches nothing more. */
DEVICE void ring_stop(struct worker *me) {
  compute_sync();
  if (me->thread == 0) store_shared(shared_flag(FLAG_STOP), 1);
}

/* What was fetched ahead in vain must have come before the block may end: the last RING_SLOTS slices, oldest first. */
DEVICE void ring_drain(struct worker *me) {
  for (int back = 0; back < RING_SLOTS; ++back) {
    /* Slots not reached yet hold the slices of one round before; in the first round there are none. */
    const bool earlier_round = me->slot + back < RING_SLOTS;
    const int slot = earlier_round ? me->slot + back : me->slot + back - RING_SLOTS;
    if (earlier_round && !me->wrapped) continue;
    while (!barrier_passed(ring_full(slot), earlier_round ? me->parity ^ 1 : me->parity)) relax("last weights");
  }
}
