/*
 * Tiles of bf16z: bfloat16 in fewer bytes, bit for bit the same numbers. The upper byte of a bfloat16 is its sign and the
 * upper seven bits of its exponent, of which the weights of a tile have few: eight are written as four bits with the sign, and
 * what has another one is an exception. Tiles of 16 outputs (checkpoint/compress.ts writes them) follow one another, each
 *
 *   one cache line   upper bytes by code, of which bit 3 is the sign [16]; number of exceptions (uint32); where those beyond
 *                    six are, in cache lines from here (uint32); places (uint32) and values (uint16) of the first six
 *   then, for every 8 inputs, three vectors of 64 bytes: codes; lower bytes of inputs 0 .. 3, whose codes are the lower
 *                    halves; lower bytes of inputs 4 .. 7, the upper halves
 *
 * so that reading them is one walk. Behind the last tile is room for the other exceptions, as many for each tile: places, then
 * values. A place is an index into a tile of bf16 (linear.h); they ascend. Bytes of four inputs stand so that upper and lower
 * ones, zipped by quarters of a vector, are two vectors of a tile of bf16.
 */
#pragma once
#include <limits.h>
#include "engine.h"

#define COMPRESSED_INPUTS 8
#define COMPRESSED_GROUP_BYTES (3 * 64)
#define EXPANDED_GROUP_BYTES (4 * 64)
#define NEAR_EXCEPTIONS 6

struct compressed_header {
  uint8_t upper[16];
  uint32_t exceptions, far_lines;
  uint32_t places[NEAR_EXCEPTIONS];
  uint16_t values[NEAR_EXCEPTIONS];
  uint8_t unused[4];
};
_Static_assert(sizeof(struct compressed_header) == CACHE_LINE, "a header is a cache line");

struct compressed_tile {
  v16b upper;
  const struct compressed_header *header;
  const uint8_t *groups;
  const uint32_t *far_places;
  const uint16_t *far_values;
};

static inline int far_exceptions(int in) { return in / 32 + 2; }
static inline size_t compressed_tile_bytes(int in) {
  return CACHE_LINE + (size_t)(in / COMPRESSED_INPUTS) * COMPRESSED_GROUP_BYTES;
}

static inline __attribute__((always_inline)) struct compressed_tile compressed_tile_at(const uint8_t *at, int in) {
  const struct compressed_header *header = (const struct compressed_header *)at;
  const uint32_t *far_places = (const uint32_t *)(at + (size_t)header->far_lines * CACHE_LINE);
  return (struct compressed_tile){v16b_set_quarters(header->upper), header, at + CACHE_LINE, far_places,
                                  (const uint16_t *)(far_places + far_exceptions(in))};
}

static inline uint32_t place_of_exception(const struct compressed_tile *tile, uint32_t i) {
  return i < NEAR_EXCEPTIONS ? tile->header->places[i] : tile->far_places[i - NEAR_EXCEPTIONS];
}
/* The group of exception `i`; behind the last one a group that no tile has. */
static inline int group_of_exception(const struct compressed_tile *tile, uint32_t i) {
  return i < tile->header->exceptions ? (int)(place_of_exception(tile, i) / (COMPRESSED_INPUTS * TILE)) : INT_MAX;
}

/* A group as in a tile of bf16: its eight inputs in pairs, `half` of them at a time. */
static inline __attribute__((always_inline)) void load_half_group(const struct compressed_tile *tile, int group, int half,
                                                                  v16b pairs[2]) {
  const uint8_t *at = tile->groups + (size_t)group * COMPRESSED_GROUP_BYTES;
  const v16b codes = v16b_load(at), lower = v16b_load(at + 64 * (1 + half));
  const v16b upper = v16b_lookup(tile->upper, v16b_and(half ? v16b_shr(codes, 4) : codes, 15));
  pairs[0] = v16b_zip_first(lower, upper);
  pairs[1] = v16b_zip_last(lower, upper);
}

/* Writes a group where a tile of bf16 has it, but for its exceptions. */
static inline __attribute__((always_inline)) void expand_group(const struct compressed_tile *tile, int group, uint8_t *to) {
  for (int half = 0; half < 2; ++half) {
    v16b pairs[2];
    load_half_group(tile, group, half, pairs);
    v16b_store(to + 128 * half, pairs[0]);
    v16b_store(to + 128 * half + 64, pairs[1]);
  }
}

/* Puts exceptions, from number `i` on, into the groups up to `group`, which is at `to`; returns the number of the next one. */
static inline uint32_t restore_exceptions(const struct compressed_tile *tile, uint32_t i, int group, uint8_t *to) {
  for (; group_of_exception(tile, i) <= group; ++i) {
    const uint16_t value = i < NEAR_EXCEPTIONS ? tile->header->values[i] : tile->far_values[i - NEAR_EXCEPTIONS];
    const int from_group = (int)place_of_exception(tile, i) - group * COMPRESSED_INPUTS * TILE;
    memcpy(to + from_group * (int)sizeof value, &value, sizeof value);
  }
  return i;
}

/* Writes a whole tile as one of bf16. */
static __attribute__((noinline, unused)) void expand_tile(struct compressed_tile tile, int in, uint8_t *to) {
  const int groups = in / COMPRESSED_INPUTS;
  for (int group = 0; group < groups; ++group) {
    ask_ahead(tile.groups + (size_t)group * COMPRESSED_GROUP_BYTES, COMPRESSED_GROUP_BYTES, PREFETCH_BYTES);
    expand_group(&tile, group, to + (size_t)group * EXPANDED_GROUP_BYTES);
  }
  restore_exceptions(&tile, 0, groups - 1, to + (size_t)(groups - 1) * EXPANDED_GROUP_BYTES);
}
