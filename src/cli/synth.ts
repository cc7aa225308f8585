/** `kloop synth PRESET --out DIR`: a checkpoint with random weights at published shapes, for benchmarks. */
import { Option } from 'commander';
import { writeSynthetic } from '../checkpoint/synth.js';
import type { ModelConfig } from '../models/model-config.js';
import { findPreset } from '../models/presets.js';
import { UsageError } from '../util/errors.js';
import { listenForInterrupt } from './interrupt.js';
import { note, withProgressBar } from './output.js';
import { defined, integer, place } from './options.js';
import { refusePricedOnly } from './priced-only.js';
import type { Verb } from './verb.js';

interface Flags {
  readonly out: string;
  readonly seed?: number;
  readonly layers?: number;
  readonly dtype?: ModelConfig['dtype'];
}

export const synth: Verb = (program) => {
  program
    .command('synth')
    .description('write a checkpoint with random weights at the shapes of a preset')
    .argument('<preset>', 'a name that `kloop presets` lists')
    .requiredOption('--out <dir>', 'directory to create', place)
    .option('--seed <n>', 'of the weights (default: 0)', integer(0))
    .option('--layers <n>', "number of layers (default: the preset's)", integer(1, 1000))
    .addOption(new Option('--dtype <dtype>', "precision (default: the preset's)").choices(['f32', 'f16', 'bf16']))
    .action(synthAction);
};

async function synthAction(name: string, { out, seed, layers, dtype }: Flags): Promise<void> {
  refusePricedOnly(name);
  const preset = findPreset(name);
  if (preset === undefined) {
    throw new UsageError(`there is no preset ${JSON.stringify(name)}`, { hint: '`kloop presets` lists them' });
  }
  using interrupt = listenForInterrupt();
  await withProgressBar((bar) =>
    writeSynthetic({ ...preset.config, ...defined({ dtype }) }, out, {
      ...defined({ seed, layers }),
      signal: interrupt.signal,
      onProgress: (done, total) => bar.update(`writing ${preset.name}`, done, total, 'bytes'),
    }),
  );
  note(`${out} holds ${preset.name} with random weights; run it with \`kloop run ${out} --prompt TEXT\``);
}
