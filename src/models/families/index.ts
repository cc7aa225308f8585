/** The families kloop compiles. Adding one: a file beside this one, and a line here (docs/adding-a-model.md). */
import type { ModelFamily } from './family.js';
import { gemma2 } from './gemma2.js';
import { llama } from './llama.js';
import { mistral } from './mistral.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';

export const families: readonly ModelFamily[] = [llama, mistral, qwen2, qwen3, gemma2];
