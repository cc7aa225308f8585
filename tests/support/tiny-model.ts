/** A checkpoint with random weights that even the reference backend runs quickly, in a directory of its own. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { writeSynthetic } from '../../src/checkpoint/synth.js';
import { parseModelConfig } from '../../src/models/parse-config.js';

export const tinyConfig = {
  architectures: ['LlamaForCausalLM'],
  num_hidden_layers: 2,
  hidden_size: 32,
  intermediate_size: 48,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 300,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  tie_word_embeddings: true,
  torch_dtype: 'float32',
};

/** Calls a token takes under `operator` and `looped`: ten kernels per layer and three, or four in all. */
export const tinyCalls = { operator: 23, layer: 5, looped: 4 } as const;

const template =
  "{% for m in messages %}[{{ m['role'] }}: {{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}[assistant: {% endif %}";

export interface TinyModel {
  readonly path: string;
  /** Edits one of its JSON files. */
  editJson(file: string, edit: (json: Record<string, unknown>) => void): void;
  remove(): void;
}

export async function writeTinyModel(
  options: { readonly chat?: boolean; readonly seed?: number } = {},
): Promise<TinyModel> {
  const parent = mkdtempSync(join(tmpdir(), 'kloop-tiny-'));
  const path = join(parent, 'tiny');
  await writeSynthetic(parseModelConfig(tinyConfig, 'tiny'), path, { seed: options.seed ?? 3 });
  const editJson: TinyModel['editJson'] = (file, edit) => {
    const json = JSON.parse(readFileSync(join(path, file), 'utf8')) as Record<string, unknown>;
    edit(json);
    writeFileSync(join(path, file), JSON.stringify(json));
  };
  if (options.chat === true) editJson('tokenizer_config.json', (json) => (json['chat_template'] = template));
  return { path, editJson, remove: () => rmSync(parent, { recursive: true, force: true }) };
}
