/**
 * A model directory as Hugging Face lays it out: config.json, safetensors, tokenizer.json, and optionally
 * generation_config.json, tokenizer_config.json and a chat template. Opening checks everything that later stages rely
 * on, so that a broken checkpoint fails here with one line.
 */
import { basename, join, resolve } from 'node:path';
import type { ModelConfig } from '../models/model-config.js';
import { parseModelConfig } from '../models/parse-config.js';
import { expectedTensors } from '../models/tensors.js';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { checkTensors } from './check-tensors.js';
import type { Checkpoint } from './checkpoint.js';
import { readGeneration } from './generation.js';
import { openGgufCheckpoint } from './gguf/checkpoint.js';
import { isGgufPath } from './gguf/path.js';
import { readJsonFile, readTextFile, requireJsonFile, statFile } from './json-file.js';
import type { WeightDtype, Weights } from './weights.js';
import { openWeights } from './weights.js';

export type { Checkpoint };

const mib = 1024 * 1024;
const maxConfigBytes = mib;
const maxTokenizerBytes = 64 * mib;
const maxTemplateBytes = mib;

/** Opens a directory or a GGUF file; the caller closes `weights`. Throws CheckpointError or UnsupportedModelError. */
export function openCheckpoint(path: string, name?: string): Checkpoint {
  return isGgufPath(path) ? openGgufCheckpoint(resolve(path), name) : openDirectory(resolve(path), name);
}

function openDirectory(directory: string, name: string | undefined): Checkpoint {
  const configFile = join(directory, 'config.json');
  const configJson = requireJsonFile(
    configFile,
    maxConfigBytes,
    'a model directory holds config.json, tokenizer.json and safetensors; of a GGUF model, give the .gguf file itself',
  );
  const config = parseModelConfig(configJson, name ?? basename(directory), configFile);
  const generationFile = join(directory, 'generation_config.json');
  const generation = readGeneration(
    { json: configJson, file: configFile },
    { json: readJsonFile(generationFile, maxConfigBytes), file: generationFile },
    config.vocab,
  );
  const tokenizerFile = requireTokenizer(directory);
  const tokenizerConfig = readTokenizerConfig(directory);
  const templates = readTemplates(directory, tokenizerConfig);
  const weights = openWeights(directory);
  try {
    checkTensors(weights, config, 'config.json');
    const dtype = storedDtype(weights, config);
    return {
      path: directory,
      config: { ...config, dtype },
      format: dtype,
      generation,
      weights,
      tokenizerFile,
      ...(tokenizerConfig === undefined ? {} : { tokenizerConfig }),
      ...templates,
    };
  } catch (error) {
    weights.close();
    throw error;
  }
}

function requireTokenizer(directory: string): string {
  const file = join(directory, 'tokenizer.json');
  const stats = statFile(file);
  if (stats === undefined) {
    throw new CheckpointError(file, 'no such file', { hint: 'kloop needs the fast tokenizer format, tokenizer.json' });
  }
  if (stats.size > maxTokenizerBytes) {
    throw new CheckpointError(file, `is ${stats.size} bytes long, at most ${maxTokenizerBytes} are read`);
  }
  return file;
}

function readTokenizerConfig(directory: string): Record<string, unknown> | undefined {
  const file = join(directory, 'tokenizer_config.json');
  const json = readJsonFile(file, maxTokenizerBytes);
  if (json === undefined) return undefined;
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new CheckpointError(file, 'is not a JSON object');
  }
  return json as Record<string, unknown>;
}

type Templates = Pick<Checkpoint, 'chatTemplate' | 'toolTemplate'>;

/** A file of its own wins over tokenizer_config.json, where a list holds named templates: `default`, `tool_use`. */
function readTemplates(directory: string, tokenizerConfig: Record<string, unknown> | undefined): Templates {
  const separate = readTextFile(join(directory, 'chat_template.jinja'), maxTemplateBytes);
  if (separate !== undefined) return { chatTemplate: separate };
  const value = tokenizerConfig?.['chat_template'];
  if (value === undefined || value === null) return {};
  if (typeof value === 'string') return { chatTemplate: value };
  const fail = () =>
    new CheckpointError(
      join(directory, 'tokenizer_config.json'),
      `chat_template ${show(value)} is neither a string nor a list of named templates`,
    );
  if (!Array.isArray(value)) throw fail();
  const named = new Map<string, string>();
  for (const entry of value as unknown[]) {
    const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
    if (typeof name !== 'string' || typeof template !== 'string') throw fail();
    named.set(name, template);
  }
  const [chatTemplate, toolTemplate] = [named.get('default'), named.get('tool_use')];
  return {
    ...(chatTemplate === undefined ? {} : { chatTemplate }),
    ...(toolTemplate === undefined ? {} : { toolTemplate }),
  };
}

/** The narrowest dtype that holds every matrix without loss; norms and biases do not count. */
function storedDtype(weights: Weights, config: ModelConfig): ModelConfig['dtype'] {
  const matrices = expectedTensors(config).filter(({ shape }) => shape.length === 2);
  const found = new Set(matrices.map(({ name }) => weights.describe(name).dtype as WeightDtype));
  const [only] = found;
  return found.size === 1 && only !== undefined ? only : 'f32';
}
