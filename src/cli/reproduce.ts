/**
 * `kloop reproduce`: every published figure beside ours, with the error. Exit code 1 when a threshold is missed: the
 * numbers are what the model gives, not what we would like.
 */
import { join } from 'node:path';
import { Option } from 'commander';
import { figures } from '../simulator/reproduce/figures.js';
import { Lab } from '../simulator/reproduce/lab.js';
import {
  formatMarkdown,
  formatReproduction,
  formatThreshold,
  reproduce as runReproduction,
} from '../simulator/reproduce/report.js';
import { writeFileAtomic } from '../util/files.js';
import { place } from './options.js';
import { note, print, printJson } from './output.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly json?: boolean;
  readonly markdown?: boolean;
  readonly svg?: string;
}

export const reproduce: Verb = (program) => {
  program
    .command('reproduce')
    .description(
      'compare the simulator with every published figure of kernel looping; exit code 1 where a threshold is missed',
    )
    .option('--json', 'print one JSON object')
    .addOption(new Option('--markdown', 'print the tables of docs/simulator.md').conflicts('json'))
    .option('--svg <dir>', 'draw the figures into this directory', place)
    .action(reproduceAction);
};

async function reproduceAction({ json, markdown, svg }: Flags): Promise<void> {
  const lab = new Lab();
  const result = runReproduction(lab);
  if (json === true) printJson(result);
  else for (const line of markdown === true ? formatMarkdown(result) : formatReproduction(result)) print(line);
  if (svg !== undefined) await writeFigures(svg, lab);
  for (const threshold of result.thresholds.filter(({ met }) => !met)) {
    note(`kloop: missed: ${formatThreshold(threshold)}`);
    process.exitCode = 1;
  }
}

async function writeFigures(directory: string, lab: Lab): Promise<void> {
  for (const { name, svg } of figures(lab)) {
    await writeFileAtomic(join(directory, `${name}.svg`), (file) => file.writeFile(svg));
  }
  note(`figures written to ${directory}`);
}
