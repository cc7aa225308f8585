/** `kloop calibrate`: measures this machine for the simulator, so that speeds can be predicted before anything is run. */
import { InvalidArgumentError } from 'commander';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { chooseBackend } from '../backends/registry.js';
import { calibrate as runCalibration } from '../bench/calibrate/calibrate.js';
import { calibratedFormats } from '../bench/calibrate/cases.js';
import { hostMachineFile, hostName, writeMachine } from '../bench/calibrate/host-file.js';
import { quantitiesOf, type Machine, type Quantity } from '../simulator/machine.js';
import { requireWritable } from '../util/files.js';
import { formatTable } from '../util/table.js';
import { formatBytes, significant } from '../util/units.js';
import { listenForInterrupt } from './interrupt.js';
import { defined, integer, listOf, place } from './options.js';
import { note, paint, print, printJson, withProgressBar } from './output.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly formats?: readonly (typeof calibratedFormats)[number][];
  readonly rounds?: number;
  readonly output?: string;
  readonly cacheDir?: string;
  readonly json?: boolean;
}

export const calibrate: Verb = (program) => {
  program
    .command('calibrate')
    .description('measure this machine, so that `--machine host` predicts speeds here')
    .option('--formats <list>', `comma-separated (default: ${calibratedFormats.join(',')})`, formatList)
    .option('--rounds <n>', 'how often everything is measured (default: 9)', integer(1, 100))
    .option(
      '--output <file>',
      'where the machine file goes, a .json file (default: into the cache, as `host`)',
      machineFile,
    )
    .option('--cache-dir <dir>', 'directory for the machine file and compiled code', place)
    .option('--json', 'print the machine file')
    .action(calibrateAction);
};

function formatList(text: string): (typeof calibratedFormats)[number][] {
  return listOf(text, (item) => {
    const format = calibratedFormats.find((name) => name === item);
    if (format !== undefined) return format;
    throw new InvalidArgumentError(`Allowed choices are ${calibratedFormats.join(', ')}, separated by commas.`);
  });
}

/** What `--machine` takes for a file, and not for a name. */
function machineFile(text: string): string {
  if (text.endsWith('.json')) return text;
  throw new InvalidArgumentError('It must end with .json.');
}

async function calibrateAction(flags: Flags): Promise<void> {
  const { output, cacheDir = defaultCacheDir(), json = false, formats, rounds } = flags;
  using interrupt = listenForInterrupt();
  const file = output ?? hostMachineFile(cacheDir);
  for (const written of new Set([file, hostMachineFile(cacheDir)])) await requireWritable(written);
  const backend = await chooseBackend('cpu', note);
  const machine = await withProgressBar((bar) =>
    runCalibration({
      backend,
      cacheDir,
      ...defined({ formats, rounds }),
      onProgress: (label, done, total, unit) => bar.update(label, done, total, unit),
      signal: interrupt.signal,
    }),
  );
  await writeMachine(file, machine);
  if (json) printJson(machine);
  else for (const line of describe(machine)) print(line);
  const isHost = file === hostMachineFile(defaultCacheDir());
  note(`written to ${file}; now \`kloop simulate MODEL --machine ${isHost ? hostName : file}\``);
}

/** What was measured; the rest of the file is assumed. */
function describe(machine: Machine): string[] {
  const { memory, compute } = machine;
  const rows = quantitiesOf(machine)
    .filter(({ quantity }) => quantity.basis === 'measured')
    .map(({ path, quantity }): readonly string[] => [path, show(quantity), quantity.source]);
  const sets = (memory.workingSets ?? []).map(({ size, bandwidth }) => [
    `memory.workingSets ${formatBytes(size.value)}`,
    show(bandwidth),
    bandwidth.source,
  ]);
  const rates = Object.keys(compute.weightRates ?? {}).length;
  return [
    paint(process.stdout, 'bold', `${machine.title}: ${rows.length + sets.length} numbers measured, ${rates} formats`),
    '',
    ...formatTable([{ title: 'number' }, { title: 'value', align: 'right' }, { title: 'how' }], [...rows, ...sets]),
  ];
}

function show({ value, unit }: Quantity): string {
  switch (unit) {
    case 'B/s':
      return `${significant(value / 1e9)} GB/s`;
    case 'FLOP/s':
      return `${significant(value / 1e9)} GFLOP/s`;
    case 'B':
      return formatBytes(value);
    default:
      return `${significant(value)} ${unit}`;
  }
}
