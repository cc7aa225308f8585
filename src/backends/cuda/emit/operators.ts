/** One emitter per operator: the call of its kernel in support/, with shapes as constants. */
import type { OperatorKind, OperatorOf } from '../../../ir/program.js';
import { unreachable } from '../../../util/assert.js';
import { elementType, floatLiteral } from './names.js';
import type { OperatorContext } from './scope.js';

type Emitter<K extends OperatorKind> = (operator: OperatorOf<K>, at: OperatorContext) => void;

export const emitters: { readonly [K in OperatorKind]: Emitter<K> } = {
  appendToken({ reads, updates }, at) {
    const { tokens, slots, positions } = reads;
    const names = [updates.history, tokens, slots, positions].map((name) => at.name(name)).join(', ');
    at.statement(`i32_append_token(me, ${names}, ${at.rows(tokens)}, ${at.scope.context});`);
  },

  embed({ reads, writes, attributes }, at) {
    const { dtype } = at.type(reads.table);
    const width = at.fixed(writes.y, 1);
    const operands = `${at.name(writes.y)}, ${at.name(reads.tokens)}, ${at.name(reads.table)}`;
    const scale = floatLiteral(attributes.scale);
    at.statement(`${dtype}_embed(me, ${operands}, ${at.rows(writes.y)}, ${width}, ${scale}, ${at.features(width)});`);
  },

  ropeTable({ reads, writes }, at) {
    const operands = `${at.name(writes.table)}, ${at.name(reads.positions)}, ${at.name(reads.frequencies)}`;
    at.statement(`f32_rope_table(me, ${operands}, ${at.rows(writes.table)}, ${at.fixed(reads.frequencies, 0)});`);
  },

  rmsNorm({ reads, writes, attributes }, at) {
    const width = at.fixed(reads.x, 1);
    const group = at.fixed(reads.weight, 0);
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.weight)}`;
    const constants = `${floatLiteral(attributes.eps)}, ${floatLiteral(attributes.offset)}`;
    const part = at.units(width / group);
    at.statement(`f32_rms_norm(me, ${operands}, ${at.rows(writes.y)}, ${width}, ${group}, ${constants}, ${part});`);
  },

  linear(operator, at) {
    const { reads, writes } = operator;
    const bias = reads.bias === undefined ? 'nullptr' : at.name(reads.bias);
    at.linear(operator, `${at.name(writes.y)}, ${at.name(reads.x)}, ${bias}`);
  },

  rope({ reads, writes, attributes }, at) {
    const { headDim, pairing } = attributes;
    const width = at.fixed(reads.x, 1);
    const pairs = at.fixed(reads.table, 1) / 2;
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.table)}`;
    const shape = `${at.rows(writes.y)}, ${width}, ${headDim}, ${pairs}, ${at.units(width / headDim)}`;
    at.statement(`f32_rope_${pairing}(me, ${operands}, ${shape});`);
  },

  appendKv({ reads, updates }, at) {
    const { dtype } = at.type(updates.keys);
    const [kvHeads, context, headDim] = [1, 2, 3].map((axis) => at.fixed(updates.keys, axis));
    const states = `${at.name(updates.keys)}, ${at.name(updates.values)}`;
    const rows = [reads.k, reads.v, reads.slots, reads.positions].map((name) => at.name(name)).join(', ');
    const { spanLength } = at.scope.layout;
    // Blocks of one head each store what they will read themselves.
    const part = at.scope.hasSpans ? `item.index * ${spanLength}, (item.index + 1) * ${spanLength}` : `0, ${context!}`;
    const shape = `${at.rows(reads.k)}, ${kvHeads!}, ${headDim!}, ${context!}, ${at.units(kvHeads!)}, ${part}`;
    at.statement(`${dtype}_append_kv(me, ${states}, ${rows}, ${shape});`);
  },

  attention({ reads, writes, attributes }, at) {
    const cache = at.type(reads.keys);
    const [kvHeads, context, headDim] = [1, 2, 3].map((axis) => at.fixed(reads.keys, axis)) as [number, number, number];
    const { heads, window } = attributes;
    const { spanLength, spans } = at.scope.layout;
    const contributions = at.scratch(4 * at.scope.maxRows * heads * spans * (headDim + 2));
    const numbers = `${floatLiteral(attributes.scale)}, ${floatLiteral(attributes.softcap)}, ${window}`;
    const shape = `attention_shape{${heads}, ${kvHeads}, ${context}, ${numbers}, (float *)${contributions}, ${spans}}`;
    const vector = cache.dtype === 'bf16' ? 8 : 4;
    const variant = `${elementType(cache)}, ${headDim}, ${headDim % vector === 0 ? vector : 1}, ${spanLength}`;
    const operands = [writes.y, reads.q, reads.keys, reads.values, reads.slots, reads.positions];
    const names = operands.map((name) => at.name(name)).join(', ');
    at.statement(`attention<${variant}>(me, ${names}, ${at.rows(writes.y)}, ${shape}, item);`);
  },

  siluMul: ({ reads, writes }, at) => elementwise('f32_silu_mul', reads.gate, reads.up, writes.y, at),
  geluMul: ({ reads, writes }, at) => elementwise('f32_gelu_mul', reads.gate, reads.up, writes.y, at),
  add: ({ reads, writes }, at) => elementwise('f32_add', reads.a, reads.b, writes.y, at),
  softcap: ({ reads, writes, attributes }, at) =>
    elementwise('f32_softcap', reads.x, reads.x, writes.y, at, attributes.cap),

  gatherRows({ reads, writes }, at) {
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.index)}`;
    at.statement(`f32_gather_rows(me, ${operands}, ${at.rows(writes.y)}, ${at.fixed(reads.x, 1)});`);
  },

  sample({ reads, writes }, at) {
    const vocab = at.fixed(reads.logits, 1);
    const { logits, index, slots, positions, history, settings, seeds } = reads;
    const operands = [writes.token, logits, index, slots, positions, history, settings, seeds];
    const names = operands.map((name) => at.name(name)).join(', ');
    const edits = [reads.biased, reads.biases, reads.allowed]
      .map((name) => (name === undefined ? 'nullptr' : at.name(name)))
      .join(', ');
    const found = `(struct found *)${at.scratch(8 * at.scope.maxRows * at.scope.blocks)}`;
    const room = `(float *)${at.scratch(4 * vocab)}, (uint32_t *)${at.scratch(4 * vocab)}`;
    // Every block looks at its part first: the largest logit is all that greedy choices want.
    at.everywhere(`f32_best_of_parts(me, ${found}, ${at.name(logits)}, ${at.rows(writes.token)}, ${vocab});`);
    at.scope.handOff('the largest logits');
    at.statement(
      `f32_sample(me, ${found}, ${names}, ${edits}, ${at.rows(writes.token)}, ${vocab}, ${at.scope.context}, ${room});`,
    );
  },

  advance({ reads, writes }, at) {
    const { next_tokens, next_positions, next_remaining, next_done, emitted } = writes;
    const { token, index, positions, remaining, done, stop_tokens } = reads;
    const results = [next_tokens, next_positions, next_remaining, next_done, emitted];
    const operands = [token, index, positions, remaining, done, stop_tokens];
    const names = [...results, ...operands].map((name) => at.name(name)).join(', ');
    at.statement(`i32_advance(me, ${names}, ${at.rows(token)});`);
  },

  allReduce: () => unreachable('allReduce: the cuda backend has one socket'),
  allGather: () => unreachable('allGather: the cuda backend has one socket'),
};

function elementwise(kernel: string, a: string, b: string, y: string, at: OperatorContext, parameter = 0): void {
  const width = at.fixed(y, -1);
  const operands = `${at.name(y)}, ${at.name(a)}, ${at.name(b)}`;
  at.statement(
    `${kernel}(me, ${operands}, ${at.rows(y)}, ${width}, ${floatLiteral(parameter)}, ${at.features(width)});`,
  );
}
