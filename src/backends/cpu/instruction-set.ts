/** Which instruction set the generated code uses: the best one that this processor has, or one that was asked for. */
import { readFileSync } from 'node:fs';
import { UsageError } from '../../util/errors.js';

export interface InstructionSet {
  readonly name: string;
  readonly arch: NodeJS.Architecture | 'any';
  /** Flags of /proc/cpuinfo that it needs. */
  readonly needs: readonly string[];
  readonly compilerFlags: readonly string[];
  /** The same without rounding to bf16: where float32 is wanted, and where the compiler is too old for these flags. */
  readonly float32?: InstructionSet;
}

const avx512: InstructionSet = {
  name: 'avx512',
  arch: 'x64',
  needs: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq', 'avx512_vnni', 'fma', 'f16c'],
  compilerFlags: [
    '-mavx512f',
    '-mavx512bw',
    '-mavx512vl',
    '-mavx512dq',
    '-mavx512vnni',
    '-mfma',
    '-mf16c',
    '-mprefer-vector-width=512',
  ],
};

/** From the best to the plainest. Each has a header simd_<name>.h in support/. */
export const instructionSets: readonly InstructionSet[] = [
  {
    name: 'avx512_bf16',
    arch: 'x64',
    needs: [...avx512.needs, 'avx512_bf16'],
    compilerFlags: [...avx512.compilerFlags, '-mavx512bf16'],
    float32: avx512,
  },
  avx512,
  { name: 'avx2', arch: 'x64', needs: ['avx2', 'fma', 'f16c'], compilerFlags: ['-mavx2', '-mfma', '-mf16c'] },
  { name: 'neon', arch: 'arm64', needs: ['asimddp'], compilerFlags: ['-march=armv8.2-a+dotprod'] },
  { name: 'generic', arch: 'any', needs: [], compilerFlags: [] },
];

/** Those that this processor can run. */
export function usableInstructionSets(has: ReadonlySet<string> = cpuFlags()): readonly InstructionSet[] {
  return instructionSets.filter(
    ({ arch, needs }) => (arch === 'any' || arch === process.arch) && needs.every((flag) => has.has(flag)),
  );
}

/** @throws UsageError for a name that is unknown, or that this processor cannot run */
export function chooseInstructionSet(asked?: string, has?: ReadonlySet<string>): InstructionSet {
  const usable = usableInstructionSets(has);
  const chosen = asked === undefined ? usable[0] : usable.find(({ name }) => name === asked);
  if (chosen !== undefined) return chosen;
  throw new UsageError(`instruction set ${asked ?? ''} cannot run on this processor`, {
    hint: `use one of ${usable.map(({ name }) => name).join(', ')}`,
  });
}

/** The best one of those that round nothing that is multiplied with weights or a cache in bf16. */
export function float32InstructionSet(): InstructionSet {
  const best = chooseInstructionSet();
  return best.float32 ?? best;
}

/** Features of the first processor, as Linux names them; empty where the system does not tell. */
export function cpuFlags(): ReadonlySet<string> {
  // Every processor that macOS runs on as arm64 has the dot product.
  if (process.platform === 'darwin' && process.arch === 'arm64') return new Set(['asimddp']);
  try {
    const flags = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '';
    return new Set(flags.split(/\s+/));
  } catch {
    return new Set();
  }
}
