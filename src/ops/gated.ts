/** What siluMul and geluMul share: an activation of the gate, times up, element by element. */
import type { OperatorOf } from '../ir/program.js';
import { elementsOf } from '../ir/tensor.js';
import { perSocket, type OperatorDefinition } from './definition.js';
import { activationCost, expectSame, floats } from './shared.js';

type GatedKind = 'siluMul' | 'geluMul';

/** @param flops arithmetic per element, the product with up included */
export function gated<K extends GatedKind>(
  kind: K,
  flops: number,
  activate: (x: number) => number,
): OperatorDefinition<GatedKind> & { readonly kind: K } {
  return {
    kind,
    reads: ['gate', 'up'],
    optionalReads: [],
    updates: [],
    writes: ['y'],
    attributes: {},
    split: { kind: 'features', whole: [] },

    infer({ reads, writes }, typeOf) {
      return { [writes.y]: expectSame(kind, typeOf(reads.gate), typeOf(reads.up)) };
    },

    cost({ reads, writes }, typeOf, at) {
      const y = typeOf(writes.y);
      return activationCost(flops * elementsOf(y, at), [typeOf(reads.gate), typeOf(reads.up), y], at);
    },

    evaluate: perSocket(({ reads, writes }: OperatorOf<GatedKind>, operand) => {
      const gate = floats(operand(reads.gate));
      const up = floats(operand(reads.up));
      const y = floats(operand(writes.y));
      for (let i = 0; i < y.length; i++) y[i] = activate(gate[i]!) * up[i]!;
    }),
  };
}
