import { describe, expect, it } from 'vitest';
import { findPreset } from '../models/presets.js';
import { defined } from '../util/assert.js';
import type { BenchReport } from './bench.js';
import type { Schedule } from '../ir/program.js';
import type { Gate, GateResult } from './gate.js';
import { profileLines, reportJson, reportLines, tableLines } from './report.js';
import type { PeerInfo } from './peer.js';
import { duelsOf, resultsOf } from './results.js';
import { planRun } from './settings.js';
import type { Identity, Sample } from './workload.js';

const { config } = defined(findPreset('tinystories-15m'), 'preset');
const plan = planRun(config, { tokens: 10, promptTokens: 0 });
const [workload] = plan.workloads;

function run(milliseconds: number, kernelCalls?: number): Sample {
  const tokens = 10;
  if (kernelCalls === undefined) return { milliseconds, tokens };
  return { milliseconds, tokens, counts: { kernelCalls, barriers: 270, bytesRead: 600e6, waitNs: 0 } };
}

const peers: readonly PeerInfo[] = [
  { kind: { engine: 'llama.cpp' }, weights: 'f32', cache: 'f16', release: 'v1', system: 'CPU' },
  {
    kind: { engine: 'pytorch', mode: 'eager', weights: 'f32' },
    ...{ weights: 'f32', cache: 'f32', release: '2.5.1', system: 'transformers 4.46.0, Python 3.12.0, cpu' },
  },
];

function report(withPeer: boolean): BenchReport {
  const memoryRates = withPeer ? [10e9, 10e9] : [];
  const series = (identity: Identity, samples: Sample[]): Parameters<typeof resultsOf>[0] =>
    workload === undefined ? [] : [{ identity, workload, samples, memoryRates }];
  const results = resultsOf([
    ...series({ engine: 'kloop', schedule: 'operator', threads: 2 }, [run(40, 630), run(50, 630)]),
    ...series({ engine: 'kloop', schedule: 'response', threads: 2 }, [run(10, 1), run(10, 1)]),
    ...(withPeer ? series({ engine: 'llama.cpp', threads: 1 }, [run(30), run(20)]) : []),
    ...(withPeer ? series({ ...peers[1]!.kind, threads: 1 }, [run(50), run(50)]) : []),
  ]);
  return {
    machine: {
      ...{ cpu: 'Example CPU', architecture: 'x64', cores: 2, processors: 4, instructionSet: 'avx2' },
      ...{ compiler: 'cc 12', memoryBytes: 8e9, node: '20.19.0' },
    },
    ...{
      config,
      synthetic: true,
      backend: 'cpu',
      quant: 'f32',
      compressed: false,
      kv: 'f32',
      plan,
      rounds: 2,
      results,
      duels: duelsOf(results),
    },
    gates: [],
    correctness: {
      variants: 2,
      tokens: 64,
      peers: withPeer
        ? peers.map((peer) => ({ peer, tokens: 64, equalTokens: 60, logitDifference: 0.00123, tolerance: 0.002 }))
        : [],
    },
    bandwidth: withPeer
      ? { threads: 2, bufferBytes: 2 ** 30, measured: [10e9, 11e9, 12e9], ofWeights: [8e9, 9e9] }
      : null,
    peers: withPeer ? peers : [],
    idle: withPeer ? new Map([['kloop', 0.01] as const, ['llama.cpp', null] as const]) : null,
    profiles: [],
  };
}

describe('profileLines', () => {
  it('tells the time of every stage per token, and of all', () => {
    const identity = { engine: 'kloop', schedule: 'response', threads: 2 } as const;
    const stages = [
      { kernel: 'response_response', stage: 'o_proj', count: 320, nanoseconds: 600_000 },
      { kernel: 'response_response', stage: 'lm_head', count: 10, nanoseconds: 200_000 },
    ];
    expect(profileLines({ identity, workload: { kind: 'decode', tokens: 10, depth: 8 }, stages })).toEqual([
      'stages of tg10, response with 2 threads, counted by the kernels; with waiting for each other',
      'kernel             stage    times per token  us per token  share',
      'response_response  o_proj                32            60    75%',
      'response_response  lm_head                1            20    25%',
      'in all 80 us per token',
    ]);
  });
});

describe('reportLines', () => {
  it('says which weights are kept in fewer bytes', () => {
    const about = (quant: 'bf16' | 'q6_k'): string | undefined =>
      reportLines({ ...report(false), quant, compressed: true })[1];
    expect(about('bf16')).toContain(' bf16 weights (kept in bf16z), ');
    expect(about('q6_k')).toContain(' q6_k weights (bf16 ones kept in bf16z), ');
  });

  it('prints machine, model, checks, bandwidth, table and the comparison in words', () => {
    expect(reportLines(report(true))).toEqual(
      [
        'Example CPU, 2 cores, avx2; cc 12; Node 20.19.0',
        'tinystories-15m: 15.2M parameters, random f32 weights, KV cache in f32, context 256; backend cpu; 2 rounds, interleaved',
        'checked: 2 variants, the same 64 tokens, logits equal bit for bit where threads are equally many',
        'checked: llama.cpp v1, 60 of 64 tokens the same, logits differ by at most 0.00123 of their range',
        'checked: PyTorch 2.5.1 eager (transformers 4.46.0, Python 3.12.0, cpu) in f32, 60 of 64 tokens the same, logits differ by at most 0.00123 of their range',
        'read bandwidth: 11 GB/s (10 GB/s to 12 GB/s) with 2 threads, measured 3 times, between the runs',
        'of the weights alone: 8.5 GB/s (8 GB/s to 9 GB/s), around long runs',
        '',
        'schedule           threads  test  tok/s  (min..max)    us/token  calls  barriers  GB/s  share  vs operator  vs llama.cpp  vs PyTorch',
        'operator                 2  tg10    225  (200..250)        4500     63        27  13.5   135%           1x         0.54x       1.13x',
        'response                 2  tg10   1000  (1000..1000)      1000    0.1        27    60   600%        4.44x          2.4x          5x',
        'llama.cpp                1  tg10    417  (333..500)        2500      -         -     -      -            -            1x       2.08x',
        'PyTorch eager f32        1  tg10    200  (200..200)        5000      -         -     -      -            -         0.48x          1x',
        '',
        'tg10: response with 2 threads is 4.44x (4..5) as fast as operator',
        'tg10: response with 2 threads is 2.4x (2..3) as fast as llama.cpp with 1 thread',
        'tg10: response with 2 threads is 5x (5..5) as fast as PyTorch eager f32 with 1 thread',
      ].map((line) => expect.stringMatching(pattern(line)) as string),
    );
  });

  it('leaves out what was not measured', () => {
    const [header] = tableLines(report(false));
    expect(header).not.toMatch(/llama|PyTorch|bandwidth/);
    expect(reportLines(report(false)).join('\n')).not.toMatch(/llama|bandwidth/);
  });
});

describe('a gate against float32', () => {
  const gateOfSchedule = (schedule: Schedule, gate: Gate['gate'], meanKl: number): GateResult => ({
    ...{ identity: { engine: 'kloop', schedule, threads: 2 }, gate, meanKl, nllShift: 2e-7 },
  });

  it('is told in a line where all passed', () => {
    const gates = [gateOfSchedule('operator', 'passed', 1e-9), gateOfSchedule('response', 'passed', -3e-9)];
    const [, , , line, ...rest] = reportLines({ ...report(false), gates });
    expect(line).toBe(
      'checked: 2 variants against float32, at most: KL divergence -3.0e-9, negative log-likelihood off by 2.0e-7',
    );
    expect(rest.join('\n')).not.toContain('gate');
  });

  it('that failed is told, and marks all results of the variant', () => {
    const gates = [gateOfSchedule('operator', 'passed', 1e-9), gateOfSchedule('response', 'failed', 0.25)];
    const lines = reportLines({ ...report(true), gates });
    expect(lines).toContain(
      'FAILED: response with 2 threads, against float32: KL divergence 2.5e-1, negative log-likelihood off by 2.0e-7',
    );
    const marked = lines.filter((line) => line.endsWith('  FAILED'));
    expect(marked.map((line) => line.split(' ')[0])).toEqual(['response']);
    expect(reportJson({ ...report(true), gates })).toMatchObject({
      gates: [{ gate: 'passed' }, { schedule: 'response', gate: 'failed', mean_kl: 0.25, nll_shift: 2e-7 }],
    });
  });
});

/** The line, with any number of spaces where there are two. */
function pattern(line: string): RegExp {
  const escaped = line.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(`^${escaped.replaceAll(/ {2,}/g, ' {2,}')}$`);
}

describe('reportJson', () => {
  it('has the figures of the table, and every run', () => {
    const json = reportJson(report(true)) as { results: { rounds: unknown[] }[] };
    expect(json).toMatchObject({
      model: 'tinystories-15m',
      quant: 'f32',
      bandwidth: {
        bytes_per_second: { median: 11e9, min: 10e9, max: 12e9 },
        weights_bytes_per_second: { median: 8.5e9, min: 8e9, max: 9e9 },
      },
      peers: [{ name: 'llama.cpp' }, { name: 'pytorch', mode: 'eager', weights: 'f32', release: '2.5.1' }],
      idle: { kloop: 0.01, 'llama.cpp': null },
      best: [
        { test: 'tg10', schedule: 'response', threads: 2, peer: { threads: 1 }, ratio_to_peer: { min: 2, max: 3 } },
        { test: 'tg10', schedule: 'response', threads: 2, peer: { engine: 'pytorch', mode: 'eager' } },
      ],
    });
    expect(json.results[1]).toMatchObject({
      engine: 'kloop',
      schedule: 'response',
      kernel_calls_per_token: 0.1,
      bytes_per_token: 60e6,
      tokens_per_second: { median: 1000 },
    });
    expect(json.results[2]).toMatchObject({ engine: 'llama.cpp', schedule: null, kernel_calls_per_token: null });
    expect(json.results[0]?.rounds[1]).toEqual({
      ...{ milliseconds: 50, tokens: 10, kernel_calls: 630, barriers: 270, bytes_read: 600e6, wait_ns: 0 },
    });
  });
});
