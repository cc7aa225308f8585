/**
 * A machine as data: what the simulator knows about hardware, in numbers that each have a unit, a source and a basis.
 * The built-in ones are in machines/; a user's own is a JSON file of the same shape, checked here.
 */
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { dtypes } from '../ir/formats.js';
import type { DType } from '../ir/program.js';
import { messageOf, UsageError } from '../util/errors.js';
import { errorCode } from '../util/files.js';

/**
 * Where a number is from: `printed` in the source; `derived` by arithmetic on printed values; `inferred` (an assumption
 * that fits what is known, another reading is possible); `fitted` by scripts/fit-machines.mjs to the calibration figures;
 * `measured` on the machine itself.
 */
const bases = ['printed', 'derived', 'inferred', 'fitted', 'measured'] as const;
export type Basis = (typeof bases)[number];

/** Who issues kernel calls: the host, or the machine itself (a captured graph, offloaded schedules). */
export const orchestrations = ['offloaded', 'host'] as const;
export type Orchestration = (typeof orchestrations)[number];

export interface Quantity<U extends string = string> {
  readonly value: number;
  readonly unit: U;
  readonly source: string;
  readonly basis: Basis;
}

/** Within bounds that keep every time a number. */
function quantity<U extends string>(unit: U, min: number, max: number) {
  return z.strictObject({
    value: z.number().min(min).max(max),
    unit: z.literal(unit),
    source: z.string().min(1).max(2000),
    basis: z.enum(bases),
  });
}

const rate = quantity('B/s', 1, 1e18);
const microseconds = quantity('us', 0, 1e9);
const bytes = quantity('B', 1, 2 ** 53);
const share = quantity('1', 1e-6, 1);
const count = quantity('1', 1, 1e9);

/** Points of a curve over sizes. */
function curve<T extends z.ZodType<{ size: { value: number } }>>(point: T) {
  return z
    .array(point)
    .max(64)
    .refine((points) => points.every(({ size }, i) => i === 0 || size.value > points[i - 1]!.size.value), {
      message: 'must be in order of size',
    });
}

/** Rates at which several rows are multiplied with a matrix, by its elements. */
const matrixRates = curve(z.strictObject({ size: count, rate: quantity('FLOP/s', 1, 1e21) }));

/** Of some formats of weights. */
function byFormat<T extends z.ZodType>(value: T) {
  return z.partialRecord(z.enum(dtypes as [DType, ...DType[]]), value);
}

const machineSchema = z.strictObject({
  name: z.string().regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, 'must be lower case letters, digits, dots and dashes'),
  title: z.string().min(1).max(200),
  /** `dataflow`: operators of a kernel are spatial and overlap. `sequential`: they take turns on the same units. */
  style: z.enum(['dataflow', 'sequential']),
  maxSockets: z.int().min(1).max(4096),
  /** Where nobody says otherwise; default: offloaded. */
  orchestration: z.enum(orchestrations).optional(),
  memory: z.strictObject({
    /** Specified: of which the simulator counts percent. */
    bandwidth: rate,
    /** Part of it that a long stream reaches. */
    efficiency: share,
    latency: microseconds,
    capacity: bytes,
    /**
     * Rates at which a model of this size arrives, token after token, where caches hold some of it; by size. In between
     * they are interpolated; a model that is larger than all of them arrives at the bandwidth.
     */
    workingSets: curve(z.strictObject({ size: bytes, bandwidth: rate })).optional(),
  }),
  /** A larger and slower memory behind it, for what does not fit. */
  farMemory: z.strictObject({ bandwidth: rate, capacity: bytes }).optional(),
  onChip: z.strictObject({
    capacity: bytes,
    bandwidth: rate,
    /** Unit in which weights stream. */
    tile: bytes,
    /** What a loop loads for its next iteration before the results of this one are made; default: as much as the program plans. */
    nextIteration: z.enum(['planned', 'nothing']).optional(),
  }),
  compute: z.strictObject({
    peak: quantity('FLOP/s', 1, 1e21),
    /** Part of it that a fused kernel can use. */
    usable: share,
    /** Rows are computed in multiples of this many. */
    rowTile: count,
    /** Rows that element-wise work and activations handle side by side. */
    rowLanes: count,
    /** Bytes per second at which one row of activations is read or written. */
    rowBandwidth: rate,
    /** At which keys and values are read: of one head of one sequence; of a dataflow machine, by its attention stage. */
    headBandwidth: rate,
    /** Part of the shorter of loading a tile and working on it that the longer one hides; default: all of it. */
    overlap: share.optional(),
    /** The same for formats of weights that processors see less far ahead in. */
    formatOverlaps: byFormat(share).optional(),
    /** Small matrices make less of the units. In between rates are interpolated; default: the peak, for every matrix. */
    matrixRates: matrixRates.optional(),
    /** The same for formats of weights that are worked on at other rates. */
    formatMatrixRates: byFormat(matrixRates).optional(),
    /** Stored bytes of weights that one row is multiplied with in a second, by format; others: as on-chip memory reads. */
    weightRates: byFormat(rate).optional(),
  }),
  /** From the last input of an operator to its first output, beyond bytes and arithmetic. */
  latency: z.strictObject({
    linear: microseconds,
    attention: microseconds,
    cache: microseconds,
    elementwise: microseconds,
    sampling: microseconds,
    /** Between operators of one kernel that need each other's whole result. */
    stage: microseconds,
  }),
  call: z.strictObject({
    programLoad: microseconds,
    argumentLoad: microseconds,
    launch: microseconds,
    /** Gather and broadcast at the end, on one socket. */
    sync: microseconds,
    /** What every doubling of the sockets adds to a synchronization. */
    syncPerDoubling: microseconds,
    /** More per call when the host issues it. */
    hostLaunch: microseconds,
    /** Once a token when the host drives: results out, next step in. */
    hostRoundTrip: microseconds,
    /** Once before a prompt that comes after a pause: threads sleep, clocks are slow. */
    start: microseconds.optional(),
  }),
  link: z.strictObject({
    bandwidth: rate,
    latency: microseconds,
    /** Of a collective, per other socket. */
    perPeer: microseconds,
    algorithms: z.array(z.enum(['ring', 'tree', 'one-shot'])).min(1),
    /** `pipelined`: tile by tile with producer and consumer. `alone`: when the producer is done. */
    collectives: z.enum(['pipelined', 'alone']),
  }),
});

export type Machine = Readonly<z.infer<typeof machineSchema>>;

const maxFileBytes = 1 << 20;

/** A machine from a file. @throws UsageError that names the file, the field and what is wrong with it. */
export function readMachineFile(file: string): Machine {
  let text: string;
  try {
    const stats = statSync(file);
    if (!stats.isFile()) throw new Error('it is not a regular file');
    if (stats.size > maxFileBytes) throw new Error('it is larger than 1 MB');
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const reason = errorCode(error) === 'ENOENT' ? 'there is no such file' : messageOf(error);
    throw new UsageError(`cannot read the machine file ${file}: ${reason}`, {
      hint: '`kloop simulate --help` lists the machines that need none',
    });
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${file} is not JSON: ${messageOf(error)}`);
  }
  return parseMachine(json, file);
}

/** @throws UsageError for anything that is not a whole machine; `origin` is where it is from. */
export function parseMachine(json: unknown, origin: string): Machine {
  const result = machineSchema.safeParse(json);
  if (result.success) return result.data;
  const lines = result.error.issues.slice(0, 5).map(({ path, message }) => `${path.join('.') || 'file'}: ${message}`);
  const more = result.error.issues.length - lines.length;
  throw new UsageError(`${origin} is not a machine: ${lines.join('; ')}${more > 0 ? `; and ${more} more` : ''}`, {
    hint: 'start from `kloop simulate --machine sn40l --print-machine`',
  });
}

/** Every number of a machine with its path, for tables. */
export function quantitiesOf(machine: Machine): { readonly path: string; readonly quantity: Quantity }[] {
  const found: { path: string; quantity: Quantity }[] = [];
  const visit = (value: unknown, path: string): void => {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return;
    if ('value' in value && 'unit' in value) found.push({ path, quantity: value as Quantity });
    else for (const [key, child] of Object.entries(value)) visit(child, path === '' ? key : `${path}.${key}`);
  };
  visit(machine, '');
  return found;
}

/** The machine with numbers replaced by path (`call.launch`), for what-if and fitting; marked as such. */
export function withValues(
  machine: Machine,
  values: Readonly<Record<string, number>>,
  basis: Basis = 'inferred',
): Machine {
  const copy = structuredClone(machine);
  const quantities = new Map(quantitiesOf(copy).map(({ path, quantity }) => [path, quantity]));
  for (const [path, value] of Object.entries(values)) {
    const target = quantities.get(path);
    if (target === undefined) {
      throw new UsageError(`machine ${machine.name} has no number ${path}`, {
        hint: `use one of ${[...quantities.keys()].join(', ')}`,
      });
    }
    Object.assign(target, { value, basis });
  }
  return parseMachine(copy, machine.name);
}
