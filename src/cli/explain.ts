/** `kloop explain MODEL|PRESET`: where the kernel boundaries are under a schedule, and why not fewer. Needs no weights. */
import { Option, type Command } from 'commander';
import { chooseBackend } from '../backends/registry.js';
import { print as printIr } from '../ir/print.js';
import { schedules, type DType, type Program, type Schedule } from '../ir/program.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset } from '../models/presets.js';
import { callsPerToken, explainProgram } from '../passes/explain.js';
import { modelCompiler, type CompiledModel } from '../passes/pipeline.js';
import { loopingAdvice } from '../simulator/advice.js';
import { PricedProgram } from '../simulator/price.js';
import { formatTable } from '../util/table.js';
import { machineNames, machineOf } from './machine-option.js';
import { shapeOfCheckpoint, type ModelShape } from './model-shape.js';
import { integer, scheduleOption } from './options.js';
import { note, paint, print, printJson } from './output.js';
import { refusePricedOnly } from './priced-only.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly schedule?: Schedule;
  readonly sockets: number;
  readonly machine?: string;
  readonly ir?: boolean;
  readonly json?: boolean;
}

export const explain: Verb = (program) => {
  const command: Command = program
    .command('explain')
    .description('show the kernel calls of a token, and what keeps them from being fewer')
    .argument(
      '<model>',
      'a name that `kloop presets` lists, `demo`, a directory, a .gguf file, or OWNER/NAME that has been pulled',
    )
    .addOption(scheduleOption())
    .option('--sockets <n>', 'accelerators that share the model', integer(1, 1024), 1)
    .option('--machine <machine>', `say what looping gives there (simulated): ${machineNames}, or a .json file`)
    .addOption(new Option('--ir', 'print the program itself').conflicts('json'))
    .option('--json', 'print one JSON object');
  command.action(explainAction);
};

async function explainAction(spec: string, flags: Flags): Promise<void> {
  const shape = shapeOf(spec);
  const { config } = shape;
  const schedule = flags.schedule ?? 'response';
  const compile = await compilerFor(shape, flags.sockets);
  const compiled = compile(schedule);
  const program = programOf(compiled);
  const advice = flags.machine === undefined ? [] : adviceFor(shape, flags.machine, flags.sockets);
  if (flags.json === true) {
    printJson({ ...toJson(config, program, compiled), ...(flags.machine === undefined ? {} : { advice }) });
  } else if (flags.ir === true) process.stdout.write(printIr(program));
  else describe(config, compiled, compile);
  if (flags.json !== true && flags.ir !== true) for (const line of advice) print(line);
}

/** What looping gives on a simulated machine, one sequence at a usual context. */
function adviceFor({ config, ...formats }: ModelShape, name: string, sockets: number): string[] {
  const point = { sockets, batch: 1, context: Math.min(config.context, 4096) };
  const machine = machineOf(name);
  return loopingAdvice(new PricedProgram(config, formats), machine, point, machine.orchestration ?? 'offloaded');
}

function shapeOf(spec: string): ModelShape {
  refusePricedOnly(spec);
  const config = findPreset(spec)?.config;
  return config === undefined ? shapeOfCheckpoint(spec) : { config, quant: config.dtype };
}

type Compile = (schedule: Schedule) => CompiledModel;

/** Compiles for the CPU, whatever it would run on: the kernel boundaries are the same on all. */
async function compilerFor({ config, quant, formats }: ModelShape, sockets: number): Promise<Compile> {
  const { capabilities } = await chooseBackend('cpu', note);
  const limits = { rows: 64, samples: 1, slots: 1, context: Math.min(config.context, 4096) };
  const formatOf = (tensor: string): DType => formats?.get(tensor) ?? quant;
  return modelCompiler(config, { sockets, limits, capabilities, weightFormat: quant, formatOf });
}

function programOf({ plan }: CompiledModel): Program {
  return plan.response ?? plan.step;
}

function toJson(config: ModelConfig, program: Program, { reports }: CompiledModel): object {
  const { perResponse } = callsPerToken(program);
  return {
    model: config.name,
    schedule: program.schedule,
    sockets: program.sockets,
    calls_per_token: program.calls.length,
    // A response has one call for all its tokens, or one per chunk of them.
    ...(perResponse === undefined
      ? { calls_per: 'token' }
      : { calls_per: 'response', tokens_per_response: perResponse.tokens }),
    kernels: program.kernels.map(({ name, params, body }) => ({
      name,
      calls: program.calls.filter((call) => call.kernel === name).length,
      parameters: params.length,
      statements: body.statements.length,
    })),
    refusals: reports.flatMap(({ pass, refusals }) => refusals.map((refusal) => ({ pass, ...refusal }))),
    notes: reports.flatMap(({ pass, notes }) => notes.map((text) => ({ pass, note: text }))),
  };
}

function describe(config: ModelConfig, compiled: CompiledModel, compile: Compile): void {
  const program = programOf(compiled);
  const bold = (text: string): string => paint(process.stdout, 'bold', text);
  print(bold(config.name));
  for (const line of explainProgram(program, compiled.reports)) print(line);
  for (const { pass, notes } of compiled.reports.filter((report) => report.notes.length > 0)) {
    print(`\n${bold(pass)}`);
    for (const text of notes) print(`  ${text}`);
  }
  if (hasCompressible(program)) {
    print(
      '\nbytes of bf16 matrices are those of the checkpoint; the cpu backend keeps three quarters where they allow it',
    );
  }
  const rows = schedules.map((schedule) => {
    const other = schedule === program.schedule ? compiled : compile(schedule);
    return [schedule, countOf(programOf(other))];
  });
  print('');
  for (const line of formatTable([{ title: 'schedule' }, { title: 'kernel calls' }], rows)) print(line);
}

/** Whether matrices may be read in fewer bytes than are shown: which ones, their numbers would tell. */
function hasCompressible({ sockets, values }: Program): boolean {
  const isMatrix = ({ tensor, origin }: Program['values'][number]): boolean =>
    origin.kind === 'checkpoint' && tensor.shape.length === 2 && tensor.dtype === 'bf16';
  return sockets === 1 && values.some(isMatrix);
}

function countOf(program: Program): string {
  const { perResponse } = callsPerToken(program);
  return `${program.calls.length} per ${perResponse === undefined ? 'token' : 'response'}`;
}
