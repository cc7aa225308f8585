/** Random small parts of kernels: chains and forks of operators that load, work, follow and collect. */
import fc from 'fast-check';
import { noCost, type WorkInput, type WorkNode, type WorkPart } from '../../src/simulator/workload.js';

const nodes: fc.Arbitrary<WorkNode[]> = fc
  .array(
    fc.record({
      bytes: fc.nat(9),
      flops: fc.nat(9),
      kind: fc.constantFrom('linear', 'elementwise', 'attention', 'collective'),
      inputs: fc.array(fc.record({ back: fc.nat(2), stream: fc.boolean() }), { minLength: 1, maxLength: 2 }),
      addressed: fc.nat(6),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((specs) =>
    specs.map(({ bytes, flops, kind, inputs, addressed }, index): WorkNode => {
      const collective = kind === 'collective' ? { kind: 'sum' as const, sockets: 4, bytes: flops } : undefined;
      return {
        name: `n${index}`,
        kind,
        category: 'gemm',
        stage: index,
        cost: { ...noCost, flops, weightBytes: collective === undefined ? bytes : 0 },
        rows: 1,
        streams: 1,
        inputs: inputsOf(index, inputs),
        ...(collective === undefined ? {} : { collective }),
        ...(addressed === 0 ? { addressed: true } : {}),
      };
    }),
  );

function inputsOf(index: number, specs: readonly { readonly back: number; readonly stream: boolean }[]): WorkInput[] {
  // The first operator takes what the last one made in the iteration before.
  const makers = new Map(
    specs.flatMap(({ back, stream }) => (index > 0 ? [[index - 1 - (back % index), stream] as const] : [])),
  );
  return [...makers].map(([node, stream]) => ({ node, distance: 0, mode: stream ? 'stream' : 'whole' }));
}

export const parts: fc.Arbitrary<WorkPart> = fc
  .record({ nodes, trip: fc.integer({ min: 1, max: 40 }), ahead: fc.integer({ min: 0, max: 40 }) })
  .map(({ nodes: list, trip, ahead }) => {
    const [first, ...others] = list;
    const last = list.length - 1;
    const carried: WorkInput[] = trip > 1 ? [{ node: last, distance: 1, mode: 'whole' }] : [];
    return { nodes: [{ ...first!, inputs: carried }, ...others], trip, ahead };
  });
