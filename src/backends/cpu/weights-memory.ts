/** Where an engine has its weights, in memory of its own or mapped from the packed file, and in which pages its KV cache is. */
import { packedLength } from '../../passes/pack-weights.js';
import type { Program } from '../../ir/program.js';
import { availableMemory } from '../../util/memory.js';
import type { WeightsMemory } from '../backend.js';

/** Of the memory that is free; the rest is for KV caches, and for whoever else runs here. */
const mostOfFree = 0.5;

/** Of the memory that is free: a KV cache up to this size is in large pages. */
const mostInLargePages = 0.125;

/**
 * Whether the KV cache, and all else that kernels write, is in large pages. They are read faster, and come by the 2 MiB:
 * the first tokens of a conversation take most of the room that its context may need. Larger caches stay in small pages,
 * which come as the context grows.
 */
export function takesLargePages(arenaBytes: number, freeBytes: number = availableMemory()): boolean {
  return arenaBytes <= mostInLargePages * freeBytes;
}

/**
 * Offset and bytes of every matrix in the packed file, in order, where they are to be copied; empty where the
 * file is mapped. Workers copy the parts of matrices that they will read.
 * @param freeBytes what this process may still take, limits of its control group included
 */
export function spansToCopy(
  program: Program,
  choice: WeightsMemory = 'auto',
  freeBytes: number = availableMemory(),
): Float64Array {
  const fits = packedLength(program) <= mostOfFree * freeBytes;
  if (choice === 'mapped' || (choice === 'auto' && !fits)) return new Float64Array(0);
  const placements = program.values.flatMap(({ origin }) =>
    origin.kind === 'checkpoint' && origin.placement !== undefined ? [origin.placement] : [],
  );
  placements.sort((a, b) => a.offset - b.offset);
  return Float64Array.from(placements.flatMap(({ offset, bytes }) => [offset, bytes]));
}
