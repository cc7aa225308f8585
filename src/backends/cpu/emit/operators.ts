/** One emitter per operator: the call of its kernel in support/, with shapes as constants. */
import type { OperatorKind, OperatorOf } from '../../../ir/program.js';
import { unreachable } from '../../../util/assert.js';
import { contextBlock, positionsOf } from './attention.js';
import { formBytes, inputForm } from './input-forms.js';
import { floatLiteral, type OperatorContext } from './scope.js';

/** Query heads that are computed together (GROUP in attention.h). */
const attentionGroup = 4;

type Emitter<K extends OperatorKind> = (operator: OperatorOf<K>, at: OperatorContext) => void;

/** Bytes per vocabulary entry of the sampler's memory (sampler_bytes_per_token in sample.h). */
const samplerBytesPerToken = 17;

export const emitters: { readonly [K in OperatorKind]: Emitter<K> } = {
  appendToken({ reads, updates }, at) {
    const { tokens, slots, positions } = reads;
    const names = [updates.history, tokens, slots, positions].map((name) => at.name(name)).join(', ');
    at.statement(`i32_append_token(${names}, ${at.rows(tokens)}, ${at.context});`);
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
    at.statement(`f32_rope_table(${operands}, ${at.rows(writes.table)}, ${at.fixed(reads.frequencies, 0)});`);
  },

  rmsNorm({ reads, writes, attributes }, at) {
    const width = at.fixed(reads.x, 1);
    const group = at.fixed(reads.weight, 0);
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.weight)}`;
    const constants = `${floatLiteral(attributes.eps)}, ${floatLiteral(attributes.offset)}`;
    const part = at.units(width / group);
    at.statement(`f32_rms_norm(${operands}, ${at.rows(writes.y)}, ${width}, ${group}, ${constants}, ${part});`);
  },

  linear({ reads, writes }, at) {
    const { dtype } = at.type(reads.weight);
    const [out, width] = [at.fixed(reads.weight, 0), at.fixed(reads.weight, 1)];
    const bias = reads.bias === undefined ? 'NULL' : at.name(reads.bias);
    const x = at.inputs(reads.x, dtype);
    const operands = `${at.name(writes.y)}, ${x}, ${at.name(reads.weight)}, ${bias}`;
    const expanded = dtype === 'bf16z' ? `, own(me, ${at.expandedTile})` : '';
    at.statement(
      `${dtype}_linear(me, ${operands}, ${at.rows(writes.y)}, ${width}, ${out}, ${at.tiles(out)}${expanded});`,
    );
  },

  rope({ reads, writes, attributes }, at) {
    const width = at.fixed(reads.x, 1);
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.table)}`;
    const heads = at.units(width / attributes.headDim);
    const half = attributes.headDim / 2;
    at.statement(`f32_rope_${attributes.pairing}(${operands}, ${at.rows(writes.y)}, ${width}, ${half}, ${heads});`);
  },

  appendKv({ reads, updates }, at) {
    const { dtype } = at.type(updates.keys);
    const [kvHeads, context, headDim] = [1, 2, 3].map((axis) => at.fixed(updates.keys, axis));
    const states = `${at.name(updates.keys)}, ${at.name(updates.values)}`;
    const rows = [reads.k, reads.v, reads.slots, reads.positions].map((name) => at.name(name)).join(', ');
    const shape = `${at.rows(reads.k)}, ${kvHeads!}, ${headDim!}, ${positionsOf(context!)}, ${contextBlock}`;
    at.statement(`${dtype}_append_kv(${states}, ${rows}, ${shape}, ${at.attentionUnit(kvHeads!)});`);
  },

  attention({ reads, writes, attributes }, at) {
    const { dtype } = at.type(reads.keys);
    const [kvHeads, context, headDim] = [1, 2, 3].map((axis) => at.fixed(reads.keys, axis));
    const { heads, window } = attributes;
    const numbers = `${floatLiteral(attributes.scale)}, ${floatLiteral(attributes.softcap)}, ${window}`;
    const group = heads / kvHeads!;
    const states = at.mostRows(reads.q) * 2 * group + 2 * group;
    const own = at.ownMemory(4 * (attentionGroup * contextBlock + states + group * headDim!));
    const form = inputForm(dtype);
    const queries = at.ownMemory(form === undefined ? 0 : formBytes(form, at.mostRows(reads.q) * group, headDim!));
    // Integers and a step for every head and block of the format (q8_0_make_weights in kv_formats.h).
    const weights = at.ownMemory(dtype === 'q8_0' ? attentionGroup * (headDim! / 32) * (4 + 2 * contextBlock) : 0);
    const blocks = [at.mostRows(reads.q), heads, Math.ceil(context! / contextBlock), headDim! + 2];
    const waiting = at.division === 'context' ? at.sharedMemory([4, ...blocks]) : 0;
    const memory = `${contextBlock}, ${own}, ${queries}, ${weights}, ${waiting}, ${at.headCounters}`;
    const shape = `${heads}, ${kvHeads!}, ${headDim!}, ${positionsOf(context!)}, ${numbers}, ${memory}`;
    const operands = [writes.y, reads.q, reads.keys, reads.values, reads.slots, reads.positions];
    const names = operands.map((name) => at.name(name)).join(', ');
    const rows = at.rows(writes.y);
    const unit = at.attentionUnit(kvHeads!);
    at.statement(
      `${dtype}_attention_${headDim!}x${group}(me, ${names}, ${rows}, (struct attention_shape){${shape}}, ${unit});`,
    );
  },

  siluMul: ({ reads, writes }, at) => elementwise('f32_silu_mul', reads.gate, reads.up, writes.y, at),
  geluMul: ({ reads, writes }, at) => elementwise('f32_gelu_mul', reads.gate, reads.up, writes.y, at),
  add: ({ reads, writes }, at) => elementwise('f32_add', reads.a, reads.b, writes.y, at),
  softcap: ({ reads, writes, attributes }, at) =>
    elementwise('f32_softcap', reads.x, reads.x, writes.y, at, attributes.cap),

  gatherRows({ reads, writes }, at) {
    const operands = `${at.name(writes.y)}, ${at.name(reads.x)}, ${at.name(reads.index)}`;
    at.statement(`f32_gather_rows(${operands}, ${at.rows(writes.y)}, ${at.fixed(reads.x, 1)});`);
  },

  sample({ reads, writes }, at) {
    const vocab = at.fixed(reads.logits, 1);
    const operands = [
      reads.logits,
      reads.index,
      reads.slots,
      reads.positions,
      reads.history,
      reads.settings,
      reads.seeds,
    ];
    const names = [writes.token, ...operands].map((name) => at.name(name)).join(', ');
    const edits = [reads.biased, reads.biases, reads.allowed]
      .map((name) => (name === undefined ? 'NULL' : at.name(name)))
      .join(', ');
    const memory = at.ownMemory(samplerBytesPerToken * vocab);
    at.statement(`f32_sample(me, ${names}, ${edits}, ${at.rows(writes.token)}, ${vocab}, ${at.context}, ${memory});`);
  },

  advance({ reads, writes }, at) {
    const results = [
      writes.next_tokens,
      writes.next_positions,
      writes.next_remaining,
      writes.next_done,
      writes.emitted,
    ];
    const operands = [reads.token, reads.index, reads.positions, reads.remaining, reads.done, reads.stop_tokens];
    const names = [...results, ...operands].map((name) => at.name(name)).join(', ');
    at.statement(`i32_advance(${names}, ${at.rows(reads.token)});`);
  },

  allReduce: () => unreachable('allReduce: the cpu backend has one socket'),
  allGather: () => unreachable('allGather: the cpu backend has one socket'),
};

function elementwise(kernel: string, a: string, b: string, y: string, at: OperatorContext, parameter = 0): void {
  const width = at.fixed(y, -1);
  const operands = `${at.name(y)}, ${at.name(a)}, ${at.name(b)}`;
  at.statement(`${kernel}(${operands}, ${at.rows(y)}, ${width}, ${floatLiteral(parameter)}, ${at.features(width)});`);
}
