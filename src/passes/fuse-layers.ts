/**
 * fuseLayers: the operators of one decoder layer become one kernel. Consecutive calls of the same layer are put together,
 * what only they use becomes local, and layers that do the same up to their arguments share one kernel.
 *
 *   attn_norm(w.0, x.0, h.0); qkv(h.0, ...); ...; ffn_add(r.0, d.0, x.1)   // 10 calls of layer 0
 *   attn_norm(w.1, x.1, h.1); qkv(h.1, ...); ...; ffn_add(r.1, d.1, x.2)   // 10 calls of layer 1
 *     -->
 *   layer(w.0, x.0, ..., x.1)                                              // one kernel, h and r are its locals
 *   layer(w.1, x.1, ..., x.2)
 */
import { CallGrouper } from '../ir/outline.js';
import type { Call, Kernel, Program } from '../ir/program.js';
import { kernelKey } from './kernel-form.js';
import { FreshNames } from './fresh-names.js';
import type { Pass } from './pass.js';
import { dropUnused } from './unused.js';
import { ValueUses } from './value-uses.js';

export const fuseLayers: Pass = (program) => {
  const uses = new ValueUses(program);
  const grouper = new CallGrouper(program);
  const groups = layerGroups(program);
  const alone = new Set(groups.filter(({ layer }) => layer === undefined).map(({ first }) => first));
  const kept = program.kernels.filter(({ name }) => [...alone].some((call) => program.calls[call]!.kernel === name));
  const names = new FreshNames(kept.map(({ name }) => name));
  const shared = new Map<string, Kernel>();

  const calls = groups.map(({ layer, first, end }): Call => {
    const members = program.calls.slice(first, end);
    if (layer === undefined) return members[0]!;
    const { kernel, args } = grouper.group(members, 'layer', (value) => uses.isUsedOutside(value, first, end));
    const key = kernelKey(kernel);
    const known = shared.get(key) ?? { ...kernel, name: names.fresh('layer') };
    shared.set(key, known);
    return { kernel: known.name, args, origin: { layer } };
  });

  const layers = calls.length - alone.size;
  const notes = [`${layers} decoder layers share ${shared.size} ${shared.size === 1 ? 'kernel' : 'kernels'}`];
  return {
    program: dropUnused({ ...program, schedule: 'layer', kernels: [...kept, ...shared.values()], calls }),
    report: { pass: 'fuseLayers', notes, refusals: [] },
  };
};

interface LayerGroup {
  readonly layer: number | undefined;
  readonly first: number;
  readonly end: number;
}

/** Calls of one layer that stand together; a call of no layer stands alone. */
function layerGroups(program: Program): LayerGroup[] {
  const groups: LayerGroup[] = [];
  program.calls.forEach(({ origin: { layer } }, index) => {
    const last = groups.at(-1);
    if (last !== undefined && layer !== undefined && last.layer === layer) {
      groups[groups.length - 1] = { ...last, end: index + 1 };
    } else {
      groups.push({ layer, first: index, end: index + 1 });
    }
  });
  return groups;
}
