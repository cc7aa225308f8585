/**
 * Prints whatever touches the ring of weights or the counters of hand-offs, and notes it as a step of RingCode: the
 * certificate (passes/check-ring.ts) looks at what was printed, not at how it came about.
 */
import { blockOf, isQuantized } from '../../../ir/formats.js';
import { tileBytesOf, tileRows } from '../../../ir/packed-layout.js';
import type { Dim, DType, Name } from '../../../ir/program.js';
import type { MatrixStep, RingStep } from '../../../passes/ring-code.js';
import type { CodeWriter } from '../../../util/code-writer.js';
import { dimension } from './names.js';

type Matrix = Omit<MatrixStep, 'tileBytes' | 'sliceBytes'>;

export class RingWriter {
  private steps: RingStep[] = [];

  /** @param slotBytes of the ring */
  constructor(
    private readonly writer: CodeWriter,
    private readonly slotBytes: number,
  ) {}

  /** The steps that `print` takes. */
  collect(print: () => void): readonly RingStep[] {
    const outer = this.steps;
    const steps: RingStep[] = [];
    this.steps = steps;
    print();
    this.steps = outer;
    return steps;
  }

  /** @param type of the pointer. @param table the kernel's table of arguments */
  argument(pointer: string, type: string, table: string, index: number): void {
    this.writer.line(`${type}${pointer} = (${type})argument(me, ${table}, ${index});`);
    this.steps.push({ kind: 'argument', pointer, index });
  }

  /** @param bytesType a pointer to bytes, constant where that to the elements is */
  member(pointer: string, types: { type: string; bytesType: string }, of: string, over: Name, stride: number): void {
    const { type, bytesType } = types;
    this.writer.line(`${type}${pointer} = (${type})((${bytesType})${of} + (size_t)${over} * ${stride});`);
    this.steps.push({ kind: 'member', pointer, of, over, stride });
  }

  /** @param note for readers of the source */
  part(units: string, total: number, note: string): void {
    this.writer.line(`const range ${units} = part_of(me, ${total}); /* ${note} */`);
    this.steps.push({ kind: 'part', units, total });
  }

  within(units: string, of: string, first: number, count: number): void {
    this.writer.line(`const range ${units} = within(${of}, ${first}, ${count});`);
    this.steps.push({ kind: 'within', units, of, first, count });
  }

  copy(matrix: Matrix, from: string): void {
    const { format, rows, width, units } = matrix;
    this.writer.line(`if (!${format}_stream(me, ${from}, ${dimension(rows)}, ${width}, ${units})) return;`);
    this.steps.push({ kind: 'copy', ...matrix, ...this.sizes(format, width), from });
  }

  /** @param operands y, x and bias. @param byOne of the blocks only */
  take(matrix: Matrix, outputs: number, operands: string, byOne: boolean): void {
    const { format, rows, width, units } = matrix;
    const call = `${format}_linear(me, ${operands}, ${dimension(rows)}, ${width}, ${outputs}, ${units});`;
    this.writer.line(byOne ? `if (me->block == 0) ${call}` : call);
    const step: RingStep = { kind: 'take', ...matrix, ...this.sizes(format, width), outputs };
    this.steps.push(byOne ? { kind: 'apart', body: [step] } : step);
  }

  private sizes(format: DType, width: number): { tileBytes: number; sliceBytes: number } {
    return { tileBytes: tileBytesOf(format, width).tile, sliceBytes: sliceBytesOf(format, this.slotBytes) };
  }

  stage(name: Name, print: () => void): void {
    this.writer.line(`/* stage ${name} */`);
    const body = this.collect(print);
    this.steps.push({ kind: 'stage', name, body });
  }

  handOff(place: number): void {
    this.writer.line(`hand_off(me, ${place});`);
    this.steps.push({ kind: 'handOff', place, when: 'always' });
  }

  /** The last of an iteration. @param until samples are done, `count` of them */
  handOffUntil(place: number, until: string, count: string, over: Name): void {
    this.writer.line(`hand_off_until(me, ${place}, ${until}, ${count}, ${over});`);
    this.steps.push({ kind: 'handOff', place, when: 'always' });
  }

  /** Only where rows are many. */
  shareRows(place: number, rows: Dim): void {
    this.writer.line(`share_rows(me, ${place}, ${dimension(rows)});`);
    this.steps.push({ kind: 'handOff', place, when: 'many rows' });
  }

  /** @param mayEnd when all samples are done, or the host wants it */
  loop(loop: { over: Name; trip: number; mayEnd: boolean }, print: () => void): void {
    const { over, trip, mayEnd } = loop;
    if (mayEnd) this.writer.line(`int ${over} = 0;`);
    const head = mayEnd ? `for (; ${over} < ${trip};)` : `for (int ${over} = 0; ${over} < ${trip}; ++${over})`;
    this.writer.block(head, () => {
      const body = this.collect(print);
      this.steps.push({ kind: 'loop', over, trip, mayEnd, body });
      if (!mayEnd) return;
      this.writer.line(`++${over};`);
      this.writer.line('if (me->last_iteration) break;');
    });
  }

  /** A block of statements that blocks do not do equally often. */
  apart(head: string, print: () => void): void {
    this.writer.block(head, () => {
      const body = this.collect(print);
      if (body.length > 0) this.steps.push({ kind: 'apart', body });
    });
  }
}

/** `slice_bytes` of float_tiles.cuh and block_tiles.cuh: whole vectors, or whole pairs of blocks. */
export function sliceBytesOf(format: DType, slotBytes: number): number {
  const { bytes } = blockOf(format);
  const piece = isQuantized(format) ? 2 * tileRows * bytes : 64;
  return Math.floor(slotBytes / piece) * piece;
}
