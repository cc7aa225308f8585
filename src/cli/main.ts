#!/usr/bin/env node
/**
 * The command line: a flat list of verbs, one file each. Exit code 0; 2 for a usage error; 1 for anything else, with one
 * line on stderr that says what was wrong, where, and what to do; 130 after Ctrl+C.
 */
import { readFileSync } from 'node:fs';
import { isAbsolute, relative } from 'node:path';
import { Command, CommanderError, Option } from 'commander';
import { AbortedError, KloopError, messageOf, StorageError, UsageError } from '../util/errors.js';
import { asStorageError } from '../util/files.js';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { interruptedCode } from './interrupt.js';
import { note } from './output.js';
import type { Verb } from './verb.js';

/** Loaded when they are asked for: most of what a command needs, no other does. */
const verbs: ReadonlyMap<string, () => Promise<Verb>> = new Map([
  ['run', async () => (await import('./run.js')).run],
  ['chat', async () => (await import('./chat.js')).chat],
  ['serve', async () => (await import('./serve.js')).serve],
  ['pull', async () => (await import('./pull.js')).pull],
  ['presets', async () => (await import('./presets.js')).presets],
  ['synth', async () => (await import('./synth.js')).synth],
  ['explain', async () => (await import('./explain.js')).explain],
  ['bench', async () => (await import('./bench.js')).bench],
  ['calibrate', async () => (await import('./calibrate.js')).calibrate],
  ['simulate', async () => (await import('./simulate.js')).simulate],
  ['reproduce', async () => (await import('./reproduce.js')).reproduce],
  ['doctor', async () => (await import('./doctor.js')).doctor],
]);

/** Runs one command line and returns the exit code. */
async function main(args: readonly string[]): Promise<number> {
  endWhereNobodyReads(process.stdout);
  endWhereNobodyReads(process.stderr);
  const [first, second] = args;
  if (first === 'help' && second !== undefined && second !== first && !verbs.has(second)) {
    note(`kloop: unknown command '${second}'; see \`kloop --help\``);
    return 2;
  }
  const program = await makeProgram(verbOf(args));
  try {
    await program.parseAsync(args, { from: 'user' });
    return Number(process.exitCode ?? 0);
  } catch (error) {
    return await report(error, args, program);
  }
}

function verbOf(args: readonly string[]): string | undefined {
  return args.find((arg) => !arg.startsWith('-'));
}

/** With the verb that was asked for, or, for help, with all. */
async function makeProgram(asked: string | undefined): Promise<Command> {
  const program = new Command('kloop')
    .description('Compiles an open-weight language model into one kernel call, and runs it')
    .version(packageVersion())
    .addOption(new Option('--stack', 'print the stack of an error').hideHelp())
    .showSuggestionAfterError(true)
    // Errors are printed by `report`, on one line.
    .configureOutput({ outputError: () => undefined })
    .exitOverride();
  const loader = verbs.get(asked ?? '');
  const loaders = loader === undefined ? [...verbs.values()] : [loader];
  for (const verb of await Promise.all(loaders.map((load) => load()))) verb(program);
  for (const command of program.commands) command.copyInheritedSettings(program);
  return program;
}

function packageVersion(): string {
  // Two levels up from src/cli as from dist/cli.
  const json = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string };
  return json.version;
}

async function report(error: unknown, args: readonly string[], program: Command): Promise<number> {
  if (error instanceof CommanderError) return reportUsage((await misspelt(error, args)) ?? error, args, program);
  if (program.opts<{ stack?: boolean }>().stack === true && error instanceof Error) note(String(error.stack));
  if (error instanceof AbortedError) return interruptedCode;
  if (error instanceof StorageError) note(`kloop: ${storageMessage(error, program.commands.find(named(args)))}`);
  else if (error instanceof KloopError) note(`kloop: ${messageOf(error)}`);
  else note(`kloop: ${messageOf(error)}; this should not happen, run again with --stack for details`);
  return error instanceof UsageError ? 2 : 1;
}

/** Of a file in the cache, with how another cache is chosen. */
function storageMessage(error: StorageError, command: Command | undefined): string {
  const { cacheDir = defaultCacheDir() } = command?.opts<{ cacheDir?: string }>() ?? {};
  const way = relative(cacheDir, error.file);
  if (way.startsWith('..') || isAbsolute(way)) return messageOf(error);
  const hint = `choose another cache, with ${hasCacheOption(command) ? '--cache-dir or ' : ''}XDG_CACHE_HOME`;
  return messageOf(error).replace(/choose (another place|a place you can write to)$/, hint);
}

function hasCacheOption(command: Command | undefined): boolean {
  return command?.options.some(({ long }) => long === '--cache-dir') ?? false;
}

function named(args: readonly string[]): (command: Command) => boolean {
  const verb = verbOf(args);
  return (command) => command.name() === verb;
}

/** Where a required option is missing: an unknown one, which says better what went wrong. */
async function misspelt({ code }: CommanderError, args: readonly string[]): Promise<CommanderError | undefined> {
  if (code !== 'commander.missingMandatoryOptionValue') return undefined;
  const program = await makeProgram(verbOf(args));
  for (const command of program.commands) {
    command.action(() => undefined);
    for (const option of command.options) option.mandatory = false;
  }
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    if (error instanceof CommanderError && error.code === 'commander.unknownOption') return error;
  }
  return undefined;
}

function reportUsage(error: CommanderError, args: readonly string[], program: Command): number {
  // Help and version were asked for, and are printed.
  if (error.exitCode === 0) return 0;
  if (error.code === 'commander.help') return 2;
  const verb = program.commands.find(named(args));
  const message = messageOf(error)
    .replace(/^error: /, '')
    .replace(/\.$/, '');
  note(`kloop: ${message}; see \`kloop ${verb === undefined ? '' : `${verb.name()} `}--help\``);
  return 2;
}

/** `kloop run ... | head` closes the pipe early, which is no error; a full disk is one. */
function endWhereNobodyReads(stream: NodeJS.WriteStream): void {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0);
    if (stream === process.stdout) note(`kloop: ${messageOf(asStorageError('standard output', error))}`);
    process.exit(1);
  });
}

process.exitCode = await main(process.argv.slice(2));
