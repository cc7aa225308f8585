/**
 * The machines that code is generated for, as data: what a block may have of a multiprocessor, and how it is spent. One
 * block per multiprocessor; what is left of the shared memory after rows and work space is the ring of weights.
 */
import type { Program } from '../../ir/program.js';
import { assert } from '../../util/assert.js';
import type { DeviceInfo } from './driver.js';

/** Source of the sizes: CUDA C++ Programming Guide 13.0, "Technical Specifications per Compute Capability". */
export interface Target {
  /** `sm_90` */
  readonly name: string;
  /** Shared memory that one block may have. */
  readonly sharedBytes: number;
  /** Warps that compute; one more fetches weights. */
  readonly computeWarps: number;
  /** What is fetched at once. */
  readonly sliceBytes: number;
  /** Shared memory for rows: norms, and the inputs of matrices. */
  readonly rowsBytes: number;
  /** Positions of a span of attention, at least. */
  readonly spanLength: number;
}

export const targets: readonly Target[] = [
  { name: 'sm_80', sharedBytes: 163 << 10, computeWarps: 8, sliceBytes: 16 << 10, rowsBytes: 40 << 10, spanLength: 64 },
  { name: 'sm_86', sharedBytes: 99 << 10, computeWarps: 8, sliceBytes: 8 << 10, rowsBytes: 40 << 10, spanLength: 64 },
  { name: 'sm_87', sharedBytes: 163 << 10, computeWarps: 8, sliceBytes: 16 << 10, rowsBytes: 40 << 10, spanLength: 64 },
  { name: 'sm_89', sharedBytes: 99 << 10, computeWarps: 8, sliceBytes: 8 << 10, rowsBytes: 40 << 10, spanLength: 64 },
  { name: 'sm_90', sharedBytes: 227 << 10, computeWarps: 8, sliceBytes: 16 << 10, rowsBytes: 64 << 10, spanLength: 64 },
  {
    name: 'sm_100',
    sharedBytes: 227 << 10,
    computeWarps: 8,
    sliceBytes: 16 << 10,
    rowsBytes: 64 << 10,
    spanLength: 64,
  },
  { name: 'sm_120', sharedBytes: 99 << 10, computeWarps: 8, sliceBytes: 8 << 10, rowsBytes: 40 << 10, spanLength: 64 },
];

/** A machine for tests on a processor: little of everything, so that small models fill the ring many times. */
export const hostTarget: Target = {
  name: 'host',
  sharedBytes: 40 << 10,
  computeWarps: 2,
  sliceBytes: 1152,
  rowsBytes: 2 << 10,
  spanLength: 8,
};

/**
 * The best of `targets` that runs on a device: a cubin runs on devices of the same major version, and of the same minor one or
 * a later, which need not have as much shared memory. Undefined where there is none.
 */
export function targetFor({
  major,
  minor,
  sharedBytesPerBlock,
}: Pick<DeviceInfo, 'major' | 'minor' | 'sharedBytesPerBlock'>): Target | undefined {
  return targets
    .filter(({ name, sharedBytes }) => {
      const capability = Number(name.slice(3));
      const runs = Math.floor(capability / 10) === major && capability % 10 <= minor;
      return runs && sharedBytes <= sharedBytesPerBlock;
    })
    .at(-1);
}

/**
 * Whether a device can begin a kernel before the one that it depends on has ended: `griddepcontrol` in the kernels, and an
 * attribute of the launch. Source: CUDA Programming Guide 13.0, "Programmatic Dependent Launch": compute capability 9.0.
 */
export function hasDependentLaunch({ major }: { readonly major: number }): boolean {
  return major >= 9;
}

/** MAX_KV_HEADS of engine.cuh. */
export const maxKvHeads = 256;

/** More multiprocessors than any machine has. */
export const maxBlocks = 512;

/** Rows that are computed together while weights pass by; more of them by tensor cores, from `leastWideRows` on. */
export const rowsAtOnce = 8;
const wideRows = 64;
const leastWideRows = 16;
/** Query heads that share a key while it is in registers (GROUP in attention.cuh). */
const headGroup = 4;
/** Spans of one text, whose contributions are put together; more of them where longer spans would leave the ring no room. */
const fewSpans = 128;
/** Slots of the ring that long spans must leave: what is fetched must be able to run ahead. */
const enoughSlots = 4;

/** Constants of the generated code, in the order in which they are printed. */
export interface Layout {
  readonly computeWarps: number;
  readonly sliceBytes: number;
  readonly ringSlots: number;
  readonly rowsBytes: number;
  readonly workBytes: number;
  /** Rows that tensor cores compute together; 0 where no step has enough of them. */
  readonly wideRows: number;
  /** Positions of one span of attention, and how many spans a context has. */
  readonly spanLength: number;
  readonly spans: number;
}

export function layoutFor(target: Target, programs: readonly Program[]): Layout {
  const context = Math.max(...programs.map(({ limits }) => limits.context));
  const headDim = Math.max(0, ...programs.flatMap(headDims));
  const isBesideOthers = programs.some(({ schedule }) => schedule === 'operator');
  const ringFor = (length: number): Parts & Slots => {
    const parts = partsFor(target, length, headDim);
    const beside = isBesideOthers ? bytesBeside(target, parts) : 0;
    return { ...parts, ringSlots: slotsIn(target.sharedBytes - beside, parts) };
  };
  const slots = Math.min(enoughSlots, ringFor(target.spanLength).ringSlots);
  let spanLength = Math.max(target.spanLength, Math.ceil(context / fewSpans / 16) * 16);
  while (ringFor(spanLength).ringSlots < slots) spanLength = Math.max(target.spanLength, spanLength - 16);
  const ring = ringFor(spanLength);
  assert(ring.ringSlots >= 2, `${target.name} has no room for a ring of weights`);
  const spans = Math.ceil(context / spanLength);
  const mostRows = Math.max(...programs.flatMap(({ limits: { rows, samples } }) => [rows, samples]));
  return { ...ring, wideRows: mostRows >= leastWideRows ? wideRows : 0, spanLength, spans };
}

/** What a block has besides the ring. */
function partsFor({ computeWarps, sliceBytes, rowsBytes }: Target, spanLength: number, headDim: number): Parts {
  const workBytes = Math.max(
    2 * computeWarps * rowsAtOnce * 16 * 4,
    4 * headGroup * (spanLength + computeWarps * headDim),
    // struct choice of sample.cuh
    8 * 256 + 8 * computeWarps + 8 * 32 * computeWarps + 64,
  );
  return { computeWarps, sliceBytes, rowsBytes, workBytes: Math.ceil(workBytes / 128) * 128 };
}

type Parts = Pick<Layout, 'computeWarps' | 'sliceBytes' | 'rowsBytes' | 'workBytes'>;

/** The most slots that leave room for everything else. */
function slotsIn(bytes: number, parts: Parts): number {
  let slots = Math.floor(bytes / parts.sliceBytes);
  while (slots > 0 && sharedBytesOf({ ...parts, ringSlots: slots }) > bytes) slots--;
  return slots;
}

/**
 * What kernels with a ring leave free where they can begin while light ones run, so that both are on a multiprocessor at a
 * time: what an addition and a norm take.
 */
function bytesBeside({ name, sharedBytes }: Target, parts: Parts): number {
  const major = Math.floor(Number(name.slice(3)) / 10);
  if (!hasDependentLaunch({ major })) return 0;
  return 2 * (blockReserve + lightBytesOf({ ...parts, ringSlots: slotsIn(sharedBytes, parts) }));
}

/** Shared memory that the system takes for every block; a multiprocessor has so much more than one block may have. */
const blockReserve = 1 << 10;

/** SHARED_BYTES of engine.cuh: what a block asks for. */
export function sharedBytesOf({
  ringSlots,
  sliceBytes,
  workBytes,
  rowsBytes,
}: Omit<Parts, 'computeWarps'> & Slots): number {
  return workAt(ringSlots) + workBytes + rowsBytes + ringSlots * sliceBytes;
}

/** LIGHT_BYTES of engine.cuh, as it is handed out. */
export function lightBytesOf({ ringSlots, computeWarps }: Pick<Parts, 'computeWarps'> & Slots): number {
  return Math.ceil((workAt(ringSlots) + 2 * computeWarps * 4) / 128) * 128;
}

type Slots = Pick<Layout, 'ringSlots'>;

function workAt(slots: number): number {
  return Math.ceil((16 * slots + 16) / 128) * 128;
}

/** The last dimension of KV caches: slots, key/value heads, context, size of a head. */
function headDims({ values }: Program): number[] {
  return values.flatMap(({ tensor: { role, shape } }) => {
    const size = shape[3];
    return role === 'state' && typeof size === 'number' ? [size] : [];
  });
}
