/** `kloop presets`: the published shapes that go by name. */
import { presets as all } from '../models/presets.js';
import { parameterCount } from '../models/tensors.js';
import { formatTable } from '../util/table.js';
import { formatCount } from '../util/units.js';
import { print, printJson } from './output.js';
import type { Verb } from './verb.js';

export const presets: Verb = (program) => {
  program
    .command('presets')
    .description('list the published model shapes that go by name')
    .option('--json', 'print one JSON object')
    .action(({ json }: { json?: boolean }) => {
      if (json === true) printJson({ presets: all.map(toJson) });
      else for (const line of table()) print(line);
    });
};

function toJson({ name, description, source, config }: (typeof all)[number]): object {
  const { layers, hidden, context, heads, kvHeads, vocab } = config;
  const parameters = parameterCount(config);
  return { name, description, source, parameters, layers, hidden, heads, kv_heads: kvHeads, vocab, context };
}

function table(): string[] {
  const right = { align: 'right' } as const;
  const columns = [
    { title: 'name' },
    { title: 'parameters', ...right },
    { title: 'layers', ...right },
    { title: 'hidden', ...right },
    { title: 'context', ...right },
    { title: 'description' },
  ];
  const rows = all.map(({ name, description, config }) => [
    name,
    formatCount(parameterCount(config)),
    String(config.layers),
    String(config.hidden),
    String(config.context),
    description,
  ]);
  return formatTable(columns, rows);
}
