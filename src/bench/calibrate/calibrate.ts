/**
 * Measures this machine for the simulator: memory and caches with the bandwidth meter, everything else with small models
 * on the cpu backend itself. One and a half to two minutes, half of it compiling; a machine that is busy gives a machine that is slow.
 */
import { rm } from 'node:fs/promises';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import type { Backend } from '../../backends/backend.js';
import {
  defaultBufferBytes,
  lastLevelCacheBytes,
  measureReadBandwidth,
  openBandwidthMeter,
} from '../../backends/cpu/bandwidth.js';
import { physicalCores } from '../../backends/cpu/processors.js';
import type { DType } from '../../ir/program.js';
import { openCheckpoint } from '../../checkpoint/directory.js';
import { writeSynthetic } from '../../checkpoint/synth.js';
import type { Machine } from '../../simulator/machine.js';
import { defaultStateFormat } from '../../models/build.js';
import { defined } from '../../util/assert.js';
import { AbortedError } from '../../util/errors.js';
import { temporaryDirectory } from '../../util/files.js';
import { areaToRead, settleMs } from '../rounds.js';
import { Variant } from '../variant.js';
import {
  allCases,
  calibratedFormats,
  calibrationCases,
  context,
  depth,
  memoryCases,
  promptCases,
  promptTokens,
  tokenCases,
  type Case,
  type Cases,
} from './cases.js';
import { solveMachine, type Observations } from './solve.js';

export interface CalibrateOptions {
  readonly backend: Backend;
  readonly cacheDir: string;
  /** Formats of weights; default: all. */
  readonly formats?: readonly DType[];
  /** Measurements of every case and of every buffer; default 9. Each counts with its median. */
  readonly rounds?: number;
  readonly onProgress?: (label: string, done: number, total: number, unit: 'steps') => void;
  readonly signal?: AbortSignal;
}

const defaultRounds = 9;
/** Rounds before them, in which code gets its final form and caches their contents. */
const warmUpRounds = 6;
/** Models that are compiled side by side: a compiler keeps one core busy. */
const compiledTogether = 2;
const mib = 2 ** 20;
/** Where caches end is not known before; finer where the last level usually does. */
const workingSetMib = [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512];
/** Bytes that one measurement of a working set reads at least. */
const readBytes = 512 * mib;

/** @throws ToolchainError without a compiler, StorageError, AbortedError */
export async function calibrate(options: CalibrateOptions): Promise<Machine> {
  const threads = physicalCores();
  const memory = await measureMemory(threads, options);
  const cacheBytes = Math.min(lastLevelCacheBytes() || Infinity, cacheSeen(memory));
  const cases = calibrationCases(threads, cacheBytes, options.formats ?? calibratedFormats);
  const measured = await measureCases(cases, options);
  const { capabilities } = options.backend;
  return solveMachine(cases, {
    ...memory,
    title: `${cpus()[0]?.model.trim() ?? 'this machine'}, ${threads} threads`.slice(0, 200),
    threads,
    cacheBytes,
    memoryBytes: Math.min(totalmem(), process.constrainedMemory() || Infinity),
    nearBytes: capabilities.memories[0]?.bytes ?? mib,
    tileBytes: capabilities.tileBytes,
    ...measured,
  });
}

type Memory = Pick<Observations, 'bandwidth' | 'workingSets' | 'oneThreadRate'>;

async function measureMemory(threads: number, options: CalibrateOptions): Promise<Memory> {
  const { cacheDir, rounds = defaultRounds, onProgress, signal } = options;
  const whole = defaultBufferBytes();
  const sizes = workingSetMib.map((size) => size * mib).filter((size) => size < whole);
  const total = threads + sizes.length + 1;
  let done = 0;
  const rate = async (bytes: number, count: number): Promise<number> => {
    stopIf(signal);
    onProgress?.('reading memory', done++, total, 'steps');
    const passes = Math.max(1, Math.ceil(readBytes / bytes));
    return measureReadBandwidth({ threads: count, bytes, passes, cacheDir }, rounds);
  };
  const bandwidth: number[] = [];
  for (let count = 1; count <= threads; count++) bandwidth.push(await rate(whole, count));
  const workingSets: { bytes: number; rate: number }[] = [];
  for (const bytes of sizes) workingSets.push({ bytes, rate: await rate(bytes, threads) });
  const oneThreadRate = await rate(mib / 4, 1);
  return { bandwidth, workingSets, oneThreadRate };
}

/** Where sets end that arrive much faster than memory does: virtual machines tell of caches that they share. */
function cacheSeen({ bandwidth, workingSets }: Memory): number {
  const fromMemory = defined(bandwidth.at(-1), 'bandwidth');
  const held = workingSets.findLast(({ rate }) => rate > 2 * fromMemory);
  return held?.bytes ?? mib;
}

interface Ready {
  readonly one: Case;
  readonly variant: Variant;
}

type Timed = Pick<Observations, 'us' | 'promptUs' | 'pausedPromptUs' | 'memoryRates'>;

/** All cases are ready before the first is timed, and are timed in turn. */
async function measureCases(cases: Cases, options: CalibrateOptions): Promise<Timed> {
  const { cacheDir, rounds = defaultRounds, onProgress, signal } = options;
  const all = allCases(cases);
  const directory = await temporaryDirectory(cacheDir, 'calibrate');
  const ready: Ready[] = [];
  const meter = await openBandwidthMeter({ threads: physicalCores(), cacheDir });
  try {
    for (let i = 0; i < all.length; i += compiledTogether) {
      stopIf(signal);
      onProgress?.('compiling small models', i, all.length, 'steps');
      const some = all.slice(i, i + compiledTogether);
      const prepared = await Promise.allSettled(
        some.map(async (one, j) => ({ one, variant: await prepare(one, join(directory, String(i + j)), options) })),
      );
      // Those that are ready are closed below, whatever became of the others.
      ready.push(...prepared.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : [])));
      const failed = prepared.find((result) => result.status === 'rejected');
      if (failed !== undefined) throw failed.reason;
    }
    const us = new Map<Case, number[]>(tokenCases(cases).map((one) => [one, []]));
    const promptUs = new Map<Case, number[]>(promptCases(cases).map((one) => [one, []]));
    const pausedPromptUs: number[] = [];
    const memoryRates = new Map<Case, number[]>(memoryCases(cases).map((one) => [one, []]));
    for (let round = 0; round < warmUpRounds + rounds; round++) {
      const counts = round >= warmUpRounds;
      for (const [i, { one, variant }] of ready.entries()) {
        stopIf(signal);
        onProgress?.('timing small models', round * ready.length + i, (warmUpRounds + rounds) * ready.length, 'steps');
        const ofTokens = us.get(one);
        if (ofTokens !== undefined) {
          const rates = counts ? memoryRates.get(one) : undefined;
          // What memory gives changes within seconds: it is measured right before and after.
          const area = areaToRead(variant, meter);
          const before = rates === undefined ? 0 : meter.measure(area);
          const { milliseconds } = await variant.time({ kind: 'decode', tokens: one.tokens, depth });
          rates?.push((before + meter.measure(area)) / 2);
          if (counts) ofTokens.push((milliseconds * 1000) / one.tokens);
        }
        const ofPrompt = promptUs.get(one);
        if (ofPrompt === undefined) continue;
        await pause(settleMs);
        const first = await variant.time({ kind: 'prefill', tokens: promptTokens });
        // Threads that are awake all begin at once; after a pause, one may begin milliseconds late.
        const second = await variant.time({ kind: 'prefill', tokens: promptTokens });
        if (!counts) continue;
        ofPrompt.push(second.milliseconds * 1000);
        if (one === cases.together.many) pausedPromptUs.push(first.milliseconds * 1000);
      }
    }
    return { us, promptUs, pausedPromptUs, memoryRates };
  } finally {
    meter.close();
    for (const { variant } of ready) await variant.close();
    await rm(directory, { recursive: true, force: true });
  }
}

/** What it writes is of no use afterwards. */
async function prepare(one: Case, cacheDir: string, { backend, signal }: CalibrateOptions): Promise<Variant> {
  const directory = join(cacheDir, 'model');
  await writeSynthetic(one.config, directory, signal === undefined ? {} : { signal });
  const checkpoint = openCheckpoint(directory);
  try {
    return await Variant.prepare(checkpoint, {
      ...{ backend, schedule: one.schedule, threads: one.threads, cacheDir },
      formats: { quant: one.quant, formatOf: undefined, kv: defaultStateFormat(one.quant) },
      limits: { rows: promptTokens, samples: 1, slots: 1, context },
      ...(signal === undefined ? {} : { signal }),
    });
  } finally {
    checkpoint.weights.close();
  }
}

function stopIf(signal: AbortSignal | undefined): void {
  if (signal?.aborted === true) throw new AbortedError('the calibration was stopped');
}
