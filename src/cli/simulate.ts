/**
 * `kloop simulate MODEL|PRESET --machine M`: the time of a token on a machine that need not be there, and where it goes.
 * Nothing is run; every number is simulated.
 */
import { statSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { Option, type Command } from 'commander';
import { schedules, type DType, type Schedule } from '../ir/program.js';
import { findPreset } from '../models/presets.js';
import { loopingAdvice } from '../simulator/advice.js';
import { orchestrations, type Machine, type Orchestration } from '../simulator/machine.js';
import { isPricedName, priceModel, type ModelSpec, type PricedModel } from '../simulator/price.js';
import { simulate as runSimulation, type Simulation } from '../simulator/simulate.js';
import { sweep } from '../simulator/sweep.js';
import { sweepPoints, type SweepPoint } from '../simulator/sweep-grid.js';
import { timeline } from '../simulator/timeline.js';
import { simulationJson } from '../simulator/to-json.js';
import { chromeTrace } from '../simulator/trace.js';
import { UnsupportedModelError, UsageError } from '../util/errors.js';
import { asStorageError, writeFileAtomic } from '../util/files.js';
import { formatTable } from '../util/table.js';
import { formatBytes, formatDuration, significant } from '../util/units.js';
import { machineNames, machineOf } from './machine-option.js';
import { shapeOfCheckpoint } from './model-shape.js';
import { collect, integer, place, quantNames } from './options.js';
import { note, paint, print, printJson, withProgressBar } from './output.js';
import { formatSweep, type SweepFormat } from './sweep-output.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly machine: string;
  readonly quant?: DType;
  readonly sockets?: number;
  readonly batch: number;
  readonly context?: number;
  readonly schedule: Schedule;
  readonly orchestration?: Orchestration;
  readonly sweep?: readonly string[];
  readonly csv?: boolean;
  readonly json?: boolean;
  readonly trace?: string;
  readonly timeline?: boolean;
  readonly printMachine?: boolean;
}

const defaultContext = 4096;

export const simulate: Verb = (program) => {
  const command: Command = program
    .command('simulate')
    .description('predict the time of a token on a machine that need not be there')
    .argument(
      '[model]',
      'a name that `kloop presets` lists, a model that is only priced, `demo`, a directory, a .gguf file, or OWNER/NAME that has been pulled',
    )
    .requiredOption('--machine <machine>', `${machineNames}, or a .json file`)
    .addOption(new Option('--quant <format>', "format of the weights (default: the model's)").choices(quantNames))
    .option(
      '--sockets <n>',
      'accelerators that share the model (default: as many of the machine as divide the model)',
      integer(1, 4096),
    )
    .option('--batch <n>', 'sequences decoded together', integer(1, 4096), 1)
    .option(
      '--context <n>',
      "positions that a token attends to (default: 4096, at most the model's)",
      integer(1, 2 ** 24),
    )
    .addOption(
      new Option('--schedule <schedule>', 'where the kernel boundaries are').choices(schedules).default('looped'),
    )
    .addOption(
      new Option(
        '--orchestration <who>',
        "who issues the kernel calls (default: the machine's, mostly offloaded)",
      ).choices(orchestrations),
    )
    .option('--sweep <name=a,b,c>', 'vary sockets, batch, context, schedule, or a number of the machine', collect)
    .addOption(new Option('--csv', 'print a sweep as CSV').conflicts('json'))
    .option('--json', 'print one JSON object')
    .addOption(
      new Option('--trace <file>', 'write a trace for Perfetto (Chrome trace JSON)')
        .argParser(place)
        .conflicts('sweep'),
    )
    .addOption(new Option('--timeline', 'draw a decoder layer, not looped above looped').conflicts(['sweep', 'json']))
    .option('--print-machine', 'print the machine as JSON, to start a file of your own from');
  command.action(simulateAction);
};

async function simulateAction(spec: string | undefined, flags: Flags): Promise<void> {
  if (flags.csv === true && flags.sweep === undefined) {
    throw new UsageError('--csv prints a sweep, and there is none', { hint: 'give --sweep, or print --json' });
  }
  const machine = machineOf(flags.machine);
  if (flags.printMachine === true) {
    printJson(machine);
    return;
  }
  if (spec === undefined) {
    const hint = 'for example `kloop simulate llama-3.1-8b --machine sn40l`';
    throw new UsageError('which model?', { hint });
  }
  const model = specOf(spec, flags.quant);
  const asked: SweepPoint = {
    schedule: flags.schedule,
    sockets: flags.sockets ?? machine.maxSockets,
    batch: flags.batch,
    context: flags.context ?? Math.min(defaultContext, contextOf(model)),
    orchestration: flags.orchestration ?? machine.orchestration ?? 'offloaded',
    values: {},
  };
  const priced = priceModel(model);
  const point = flags.sockets === undefined ? dividedAmongMost(priced, machine, asked) : asked;
  if (flags.sweep !== undefined) {
    await runSweep(model, machine, point, flags.sweep, formatOf(flags));
    return;
  }
  const workload = priced.workload(machine, point);
  const simulation = runSimulation(workload, machine, point.orchestration);
  if (flags.trace !== undefined) await writeTrace(flags.trace, chromeTrace(workload, machine, point.orchestration));
  if (flags.json === true) printJson(simulationJson(simulation));
  else describe(simulation, priced, point);
  if (flags.timeline === true) {
    print('');
    const [separate, looped] = (['layer', 'looped'] as const).map((schedule) =>
      priced.workload(machine, { ...point, schedule }),
    );
    // Terminals that were told no size say 0.
    const columns = process.stdout.columns > 0 ? process.stdout.columns : undefined;
    for (const line of timeline(separate!, looped!, machine, point.orchestration, columns)) print(line);
  }
}

/** With as many sockets of the machine as the model can be divided among; a small model does not fill a large machine. */
function dividedAmongMost(priced: PricedModel, machine: Machine, point: SweepPoint): SweepPoint {
  for (let { sockets } = point; sockets > 1; sockets--) {
    const tried = { ...point, sockets };
    try {
      priced.workload(machine, tried);
    } catch (error) {
      if (error instanceof UnsupportedModelError) continue;
      throw error;
    }
    if (sockets < point.sockets) {
      note(`kloop: ${priced.name} is divided among ${sockets} sockets, since it cannot be among ${point.sockets}`);
    }
    return tried;
  }
  return { ...point, sockets: 1 };
}

/** A preset or priced model by name, or the shape of a checkpoint. */
function specOf(spec: string, quant: DType | undefined): ModelSpec {
  if (isPricedName(spec)) return { kind: 'name', name: spec, ...(quant === undefined ? {} : { quant }) };
  const shape = shapeOfCheckpoint(spec);
  return quant === undefined ? { kind: 'config', ...shape } : { kind: 'config', config: shape.config, quant };
}

function contextOf(model: ModelSpec): number {
  if (model.kind === 'config') return model.config.context;
  return findPreset(model.name)?.config.context ?? defaultContext;
}

function formatOf({ csv, json }: Flags): SweepFormat {
  return json === true ? 'json' : csv === true ? 'csv' : 'table';
}

async function runSweep(
  model: ModelSpec,
  machine: Machine,
  base: SweepPoint,
  specs: readonly string[],
  format: SweepFormat,
): Promise<void> {
  const points = sweepPoints(base, specs, machine);
  const results = await withProgressBar((bar) =>
    sweep(
      { model, machine, points },
      { workers: availableParallelism(), onProgress: (done, total) => bar.update('simulating', done, total, 'steps') },
    ),
  );
  for (const line of formatSweep(points, results, format)) print(line);
}

/** A file whole or not at all; a pipe or a device as it comes. */
async function writeTrace(file: string, pieces: Iterable<string>): Promise<void> {
  const blocks = inBlocks(pieces);
  if (statSync(file, { throwIfNoEntry: false })?.isFile() === false) {
    try {
      await writeFile(file, blocks);
    } catch (error) {
      throw asStorageError(file, error);
    }
  } else {
    await writeFileAtomic(file, (handle) => writeFile(handle, blocks));
  }
  note(`trace written to ${file}; open it at ui.perfetto.dev`);
}

/** The pieces are short, and every block is a call of the system. */
function* inBlocks(pieces: Iterable<string>): Generator<string> {
  let block = '';
  for (const piece of pieces) {
    block += piece;
    if (block.length < 2 ** 16) continue;
    yield block;
    block = '';
  }
  yield block;
}

function describe(simulation: Simulation, priced: PricedModel, point: SweepPoint): void {
  const { workload, machine, breakdownUs } = simulation;
  const bold = (text: string): string => paint(process.stdout, 'bold', text);
  print(bold(`${workload.name} on ${workload.sockets} x ${machine.title} (simulated)`));
  const { batch, context, schedule } = workload;
  print(`batch ${batch}, context ${context}, ${formatBytes(simulation.bytesPerToken)} per token on each socket`);
  print('');
  for (const line of compareSchedules(simulation, priced, point)) print(line);
  print('');
  for (const line of loopingAdvice(priced, machine, point, simulation.orchestration)) print(line);
  print(`\nwhere a token's time goes (${schedule}):`);
  const parts = Object.entries(breakdownUs).filter(([, us]) => us > 0);
  const lines = parts.map(([name, us]) => [
    `  ${name}`,
    formatDuration(us / 1000),
    `${significant((us * 100) / simulation.tpotUs)}%`,
  ]);
  const right = { align: 'right' } as const;
  for (const line of formatTable([{ title: '' }, { title: '', ...right }, { title: '', ...right }], lines).slice(1)) {
    print(line);
  }
}

/** All schedules on the same machine; the one that was asked for is marked. */
function compareSchedules(simulation: Simulation, priced: PricedModel, point: SweepPoint): string[] {
  const right = { align: 'right' } as const;
  const columns = [
    { title: 'schedule' },
    { title: 'calls per token', ...right },
    { title: 'time per token', ...right },
    { title: 'tokens/s', ...right },
    { title: 'of peak bandwidth', ...right },
  ];
  const rows = schedules.map((schedule) => {
    const { machine, orchestration } = simulation;
    const own =
      schedule === point.schedule
        ? simulation
        : runSimulation(priced.workload(machine, { ...point, schedule }), machine, orchestration);
    return [
      `${schedule === point.schedule ? '*' : ' '} ${schedule}`,
      significant(own.callsPerToken),
      formatDuration(own.tpotUs / 1000),
      significant(own.tokensPerSecond),
      `${significant(own.bandwidthFraction * 100)}%`,
    ];
  });
  return formatTable(columns, rows);
}
