/** `kloop doctor`: what this machine has that matters here. Nothing is needed but Node. */
import { defaultCacheDir } from '../backends/cache-dir.js';
import {
  inspectBandwidth,
  inspectCache,
  inspectCompiler,
  inspectCores,
  inspectCpu,
  inspectGpu,
  inspectMemory,
  inspectNode,
  type Finding,
} from './machine.js';
import { paint, print, printJson } from './output.js';
import type { Verb } from './verb.js';

export const doctor: Verb = (program) => {
  program
    .command('doctor')
    .description('what this machine has: compiler, instruction set, memory, GPU')
    .option('--json', 'print one JSON object')
    .action(async ({ json }: { json?: boolean }) => {
      const findings = await inspectMachine();
      if (json === true) printJson(Object.fromEntries(findings.map(({ key, value }) => [key, value])));
      else printFindings(findings);
    });
};

/** Every finding of its own; a machine that lacks something still gets the rest. */
async function inspectMachine(): Promise<readonly Finding[]> {
  const [cpu, cores, compiler, cache, gpu] = await Promise.all([
    inspectCpu(),
    inspectCores(),
    inspectCompiler(),
    inspectCache(defaultCacheDir()),
    inspectGpu(),
  ]);
  // Alone, since it measures.
  const bandwidth = await inspectBandwidth();
  return [inspectNode(), cpu, cores, inspectMemory(), bandwidth, ...compiler, cache, ...gpu];
}

function printFindings(findings: readonly Finding[]): void {
  const width = Math.max(...findings.map(({ title }) => title.length));
  for (const { title, text, problem } of findings) {
    const mark = problem === undefined ? paint(process.stdout, 'green', 'ok') : paint(process.stdout, 'yellow', '! ');
    print(`${mark}  ${title.padEnd(width)}  ${problem === undefined ? text : `${text} (${problem})`}`);
  }
}
