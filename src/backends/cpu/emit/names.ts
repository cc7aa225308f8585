/** Names and types of a scope as C has them, and where its memory comes from. */
import { isQuantized } from '../../../ir/formats.js';
import type { Name, Program, Tensor } from '../../../ir/program.js';
import { unreachable } from '../../../util/assert.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import type { Allocator } from '../../memory-map.js';
import type { StageProfile } from './profile.js';

export interface KernelEmission {
  readonly program: Program;
  /** Counts the time of stages, where that is wanted. */
  readonly profile?: StageProfile;
  readonly writer: CodeWriter;
  /** Memory of all workers, and each worker's own. */
  readonly scratch: Allocator;
  readonly own: Allocator;
  /** Offset in the arena of a counter for every key/value head, which no scratch memory overlaps. */
  readonly headCounters: number;
  /** Offset in each worker's own memory of room for the largest tile of bf16z, written as bf16. */
  readonly expandedTile: number;
  /** Bytes between the members of the stack that a parameter is given. */
  readonly strideOf: (param: Name) => number;
}

/** Names of the IR that mean something else in C. */
const reserved: ReadonlySet<string> = new Set([
  ...['me', 'arguments', 'rows', 'samples', 'heads', 'unit', 'layer', 'token'],
  ...['auto', 'break', 'case', 'char', 'const', 'continue', 'default', 'do', 'double', 'else', 'enum', 'extern'],
  ...['float', 'for', 'goto', 'if', 'inline', 'int', 'long', 'register', 'restrict', 'return', 'short', 'signed'],
  ...['sizeof', 'static', 'struct', 'switch', 'typedef', 'union', 'unsigned', 'void', 'volatile', 'while', 'asm'],
  ...['argument', 'claim', 'share', 'scratch', 'own', 'memcpy', 'part_of', 'tiles_of', 'programs', 'unix', 'linux'],
]);

export function cName(name: Name): string {
  return reserved.has(name) ? `${name}_value` : name;
}

/** Names of one scope, and what C calls them. */
export interface Names {
  readonly c: Map<Name, string>;
  /** For names that hold stacks: bytes between the members. */
  readonly strides: Map<Name, number>;
  /** For names of a loop body: bytes from this iteration's member to the next one's. */
  readonly steps: Map<Name, number>;
  readonly types: ReadonlyMap<Name, Tensor>;
}

/** The C type of a tensor's elements; matrices of weights are bytes, in tiles. */
export function elementType(tensor: Tensor): string {
  if (tensor.role === 'weight' && tensor.dtype !== 'f32') return 'uint8_t';
  if (isQuantized(tensor.dtype)) return 'uint8_t';
  switch (tensor.dtype) {
    case 'f32':
      return 'float';
    case 'i32':
      return 'int32_t';
    case 'bf16':
    case 'f16':
      return 'uint16_t';
    case 'bf16z':
      return unreachable('only matrices of weights are in bf16z');
    default:
      return tensor.dtype satisfies never;
  }
}
