/** What the names and types of the IR are called in CUDA C++. */
import { isQuantized } from '../../../ir/formats.js';
import type { Dim, Name, Tensor } from '../../../ir/program.js';
import { assert, unreachable } from '../../../util/assert.js';

/** Names of the IR that mean something else in C++ or in support/. */
const reserved: ReadonlySet<string> = new Set([
  ...[
    'me',
    'launch',
    'rows',
    'samples',
    'units',
    'part',
    'heads',
    'layer',
    'token',
    'argument',
    'scratch',
    'within',
    'made',
  ],
  ...[
    'alignas',
    'alignof',
    'and',
    'asm',
    'auto',
    'bool',
    'break',
    'case',
    'catch',
    'char',
    'class',
    'const',
    'constexpr',
  ],
  ...[
    'continue',
    'default',
    'delete',
    'do',
    'double',
    'else',
    'enum',
    'explicit',
    'export',
    'extern',
    'false',
    'float',
  ],
  ...['for', 'friend', 'goto', 'if', 'inline', 'int', 'long', 'mutable', 'namespace', 'new', 'not', 'operator', 'or'],
  ...[
    'private',
    'protected',
    'public',
    'register',
    'return',
    'short',
    'signed',
    'sizeof',
    'static',
    'struct',
    'switch',
  ],
  ...[
    'template',
    'this',
    'throw',
    'true',
    'try',
    'typedef',
    'typename',
    'union',
    'unsigned',
    'using',
    'virtual',
    'void',
  ],
  ...['volatile', 'while', 'xor', 'linear', 'attention', 'embed', 'rope', 'span', 'nucleus', 'draw', 'choose', 'limit'],
]);

export function cName(name: Name): string {
  return reserved.has(name) ? `${name}_value` : name;
}

/** Names of one scope. */
export interface Names {
  readonly c: Map<Name, string>;
  /** For names that hold stacks: bytes between the members. */
  readonly strides: Map<Name, number>;
  readonly types: ReadonlyMap<Name, Tensor>;
}

/** The C++ type of a tensor's elements; matrices of weights are bytes, in tiles. */
export function elementType(tensor: Tensor): string {
  if (tensor.role === 'weight' && tensor.shape.length > 1) return 'uint8_t';
  if (isQuantized(tensor.dtype)) return unreachable(`the cuda backend has no ${tensor.dtype}`);
  switch (tensor.dtype) {
    case 'f32':
      return 'float';
    case 'i32':
      return 'int32_t';
    case 'bf16':
      return 'uint16_t';
    case 'bf16z':
    case 'f16':
      return unreachable(`the cuda backend has no ${tensor.dtype}`);
    default:
      return tensor.dtype satisfies never;
  }
}

export function dimension(dim: Dim): string {
  return typeof dim === 'number' ? String(dim) : `me->${dim}`;
}

/** The number of elements, at run time. */
export function countOf(shape: readonly (number | 'rows' | 'samples')[]): string {
  return shape.map((dim) => (typeof dim === 'number' ? String(dim) : `(int64_t)${dimension(dim)}`)).join(' * ');
}

/** A float constant that C reads back exactly. */
export function floatLiteral(value: number): string {
  assert(Number.isFinite(value), `${value} is no constant`);
  const text = String(Math.fround(value));
  return /[.e]/.test(text) ? `${text}f` : `${text}.0f`;
}
