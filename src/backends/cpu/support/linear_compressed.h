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
#include "engine.h"

#define COMPRESSED_INPUTS 8
#define COMPRESSED_GROUP_BYTES (3 * 64)
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

static inline __attribute__((always_inline)) struct compressed_tile compressed_tile_at(const uint8_t *weight, int in, int tile) {
  const uint8_t *at = weight + (size_t)tile * compressed_tile_bytes(in);
  const struct compressed_header *header = (const struct compressed_header *)at;
  const uint32_t *far_places = (const uint32_t *)(at + (size_t)header->far_lines * CACHE_LINE);
  return (struct compressed_tile){v16b_set_quarters(header->upper), header, at + CACHE_LINE, far_places,
                                  (const uint16_t *)(far_places + far_exceptions(in))};
}

static inline uint32_t place_of_exception(const struct compressed_tile *tile, uint32_t i) {
  return i < NEAR_EXCEPTIONS ? tile->header->places[i] : tile->far_places[i - NEAR_EXCEPTIONS];
}
/* The group of exception `i`, or -1 behind the last one. */
static inline int group_of_exception(const struct compressed_tile *tile, uint32_t i) {
  return i < tile->header->exceptions ? (int)(place_of_exception(tile, i) / (COMPRESSED_INPUTS * TILE)) : -1;
}

/* Eight inputs as four vectors of pairs. */
static inline __attribute__((always_inline)) void load_group(const struct compressed_tile *tile, int group, v16b pairs[4]) {
  const uint8_t *at = tile->groups + (size_t)group * COMPRESSED_GROUP_BYTES;
  const v16b codes = v16b_load(at);
  const v16b first = v16b_lookup(tile->upper, v16b_and(codes, 15));
  const v16b second = v16b_lookup(tile->upper, v16b_and(v16b_shr(codes, 4), 15));
  pairs[0] = v16b_zip_first(v16b_load(at + 64), first);
  pairs[1] = v16b_zip_last(v16b_load(at + 64), first);
  pairs[2] = v16b_zip_first(v16b_load(at + 128), second);
  pairs[3] = v16b_zip_last(v16b_load(at + 128), second);
}

/* Puts the exceptions of a group, from number `i` on, into its place; returns the number of the next one. */
static __attribute__((noinline, unused)) uint32_t restore_exceptions(const struct compressed_tile *tile, int group,
                                                                     uint32_t i, v16b pairs[4]) {
  uint8_t bytes[4 * 64];
  for (int p = 0; p < 4; ++p) v16b_store(bytes + 64 * p, pairs[p]);
  for (; group_of_exception(tile, i) == group; ++i) {
    const uint16_t value = i < NEAR_EXCEPTIONS ? tile->header->values[i] : tile->far_values[i - NEAR_EXCEPTIONS];
    memcpy(bytes + place_of_exception(tile, i) % (COMPRESSED_INPUTS * TILE) * sizeof value, &value, sizeof value);
  }
  for (int p = 0; p < 4; ++p) pairs[p] = v16b_load(bytes + 64 * p);
  return i;
}

/* As in DEFINE_EMBED (linear.h). */
static __attribute__((noinline, unused)) void bf16z_embed(struct worker *me, float *y, const int32_t *tokens, const void *table,
                                                          int rows, int width, float scale, struct range features) {
  for (int row = 0; row < rows; ++row) {
    const struct compressed_tile tile = compressed_tile_at(table, width, tokens[row] / TILE);
    const int lane = tokens[row] % TILE;
    float *to = y + (size_t)row * (size_t)width;
    uint32_t exception = 0;
    for (int group = 0; group * COMPRESSED_INPUTS < features.end; ++group) {
      v16b pairs[4];
      load_group(&tile, group, pairs);
      if (group == group_of_exception(&tile, exception)) exception = restore_exceptions(&tile, group, exception, pairs);
      for (int p = 0; p < 4; ++p) {
        const int i = group * COMPRESSED_INPUTS + 2 * p;
        if (i < features.begin || i >= features.end) continue;
        v16 even, odd;
        float lanes[TILE];
        v16_from_bf16_pairs(pairs[p], &even, &odd);
        v16_store(lanes, even);
        to[i] = lanes[lane] * scale;
        v16_store(lanes, odd);
        to[i + 1] = lanes[lane] * scale;
      }
    }
  }
  me->bytes_read += (uint64_t)rows * (uint64_t)(features.end - features.begin) * 3 / 2;
}
