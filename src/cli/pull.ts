/** `kloop pull OWNER/NAME`: downloads a model from the Hub into the standard cache. */
import { pullModel } from '../checkpoint/hub/pull.js';
import { listenForInterrupt } from './interrupt.js';
import { print, withProgressBar } from './output.js';
import { defined } from './options.js';
import type { Verb } from './verb.js';

export const pull: Verb = (program) => {
  program
    .command('pull')
    .description('download a model from the Hugging Face Hub into its cache')
    .argument('<owner/name>', 'for example HuggingFaceTB/SmolLM2-135M-Instruct')
    .option('--revision <revision>', 'branch, tag or commit (default: main)')
    .action(pullAction);
};

async function pullAction(repo: string, { revision }: { revision?: string }): Promise<void> {
  using interrupt = listenForInterrupt();
  const directory = await withProgressBar((bar) =>
    pullModel(repo, {
      ...defined({ revision }),
      signal: interrupt.signal,
      onProgress: ({ doneBytes, totalBytes }) => bar.update(`pulling ${repo}`, doneBytes, totalBytes, 'bytes'),
    }),
  );
  print(directory);
}
