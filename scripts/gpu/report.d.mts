/** Types of report.mjs, for its test. */
import type { CudaBackend } from '../../src/backends/cuda/index.js';
import type { Gate } from '../../src/bench/gate.js';
import type { ModelConfig } from '../../src/models/model-config.js';

export interface ScheduleResult extends Gate {
  /** By position. */
  readonly contexts: Readonly<
    Record<
      string,
      {
        readonly usPerToken: { readonly median: number; readonly all: readonly number[] };
        readonly bandwidthShare: number;
        readonly kernelCallsPerToken: number;
        readonly handOffsPerToken: number;
        readonly bytesPerToken: number;
        readonly waitNsPerToken: number;
      }
    >
  >;
}

export interface GpuReport {
  readonly readBytesPerSec?: { readonly median: number; readonly all: readonly number[] };
  /** Names of the parts that were not measured. */
  readonly missing: readonly string[];
  /** What ended it early. */
  readonly error?: string;
  readonly models: readonly {
    readonly name: string;
    readonly layers: number;
    readonly sameBits?: boolean;
    /** By variant. */
    readonly schedules: Readonly<Record<string, ScheduleResult>>;
  }[];
}

export function gpuReport(options: {
  readonly backend: CudaBackend;
  readonly models: readonly { readonly name: string; readonly published: object; readonly config: ModelConfig }[];
  readonly cacheDir: string;
  /** Asked before each measurement: whether it is too late for it. */
  readonly isLate: () => boolean;
  readonly sizes: {
    readonly gateTokens: number;
    readonly decodeTokens: number;
    readonly rounds: number;
    /** Positions to decode at, and the context that is compiled for them; the gate is passed in the first. */
    readonly groups: readonly { readonly context: number; readonly positions: readonly number[] }[];
  };
  readonly write: (report: GpuReport) => void;
  readonly log?: (line: string) => void;
}): Promise<GpuReport>;

export function failuresOf(report: Pick<GpuReport, 'models'>): string[];
