/**
 * tokenizer.json as GGUF metadata (`tokenizer.ggml.*`): byte-level BPE becomes the kind `gpt2`, BPE over characters with
 * byte fallback (Llama 2, Mistral, Gemma) the kind `llama`, whose scores stand for the order of the merges. Ids that
 * the embedding has and the tokenizer lacks are padded, as llama.cpp's converter does.
 */
import { z } from 'zod';
import { show } from '../../util/checked.js';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import { requireJsonFile } from '../json-file.js';
import type { GgufMetadata, GgufValue } from './format.js';

export interface VocabularyOptions {
  /** Rows of the embedding. */
  readonly vocab: number;
  readonly bos?: number | undefined;
  readonly eos?: number | undefined;
  /** Jinja sources: of conversations, and of those with tools, where that is another. */
  readonly chatTemplate?: string | undefined;
  readonly toolTemplate?: string | undefined;
  /** The content of the file, where it is not a file of its own. */
  readonly json?: unknown;
}

/** llama_token_type */
const types = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

/** Below the score of every merge, for tokens that no merge makes. */
const lowestScore = -1e9;

const maxFileBytes = 64 * 1024 * 1024;

const id = z.number().int().min(0);
const merge = z.union([z.string(), z.tuple([z.string(), z.string()])]);
const fileSchema = z.looseObject({
  added_tokens: z.array(z.looseObject({ id, content: z.string(), special: z.boolean().default(false) })).nullish(),
  normalizer: z.unknown().optional(),
  pre_tokenizer: z.unknown().optional(),
  post_processor: z.unknown().optional(),
  decoder: z.unknown().optional(),
  model: z.looseObject({
    vocab: z.record(z.string(), id),
    merges: z.array(merge).default([]),
    unk_token: z.string().nullish(),
    byte_fallback: z.boolean().nullish(),
  }),
});
const kindSchema = z.looseObject({ model: z.looseObject({ type: z.string().nullish() }) });
type TokenizerJson = z.infer<typeof fileSchema>;

/** Metadata of the tokenizer in `file`. Throws CheckpointError, or UnsupportedModelError for other kinds than BPE. */
export function vocabularyMetadata(file: string, options: VocabularyOptions): GgufMetadata {
  const json = checkTokenizer(
    file,
    options.json ?? requireJsonFile(file, maxFileBytes, 'the tokenizer belongs to the model'),
  );
  const byteLevel = mentions(json.decoder, 'ByteLevel') || mentions(json.pre_tokenizer, 'ByteLevel');
  const merges = json.model.merges.map(mergeText);
  const { tokens, tokenTypes } = listTokens(json, options.vocab);
  const string = (value: string): GgufValue => ({ kind: 'string', value });
  const entries: (readonly [string, GgufValue])[] = [
    ['tokenizer.ggml.model', string(byteLevel ? 'gpt2' : 'llama')],
    ['tokenizer.ggml.pre', string(byteLevel ? preTokenizerName(json.pre_tokenizer) : 'default')],
    ['tokenizer.ggml.tokens', { kind: 'strings', value: tokens }],
    ...(byteLevel
      ? []
      : [['tokenizer.ggml.scores', { kind: 'f32s', value: scoresOf(tokens, json.model.merges) }] as const]),
    ['tokenizer.ggml.token_type', { kind: 'i32s', value: tokenTypes }],
    ...(byteLevel ? [['tokenizer.ggml.merges', { kind: 'strings', value: merges }] as const] : []),
  ];
  const ids = { bos: options.bos, eos: options.eos, unknown: tokens.indexOf(json.model.unk_token ?? '') };
  for (const [role, value] of Object.entries(ids)) {
    if (value !== undefined && value >= 0) entries.push([`tokenizer.ggml.${role}_token_id`, { kind: 'u32', value }]);
  }
  entries.push(['tokenizer.ggml.add_bos_token', { kind: 'bool', value: addsToken(json.post_processor) }]);
  entries.push(['tokenizer.ggml.add_eos_token', { kind: 'bool', value: false }]);
  if (!byteLevel) entries.push(['tokenizer.ggml.add_space_prefix', { kind: 'bool', value: addsSpace(json) }]);
  const { chatTemplate, toolTemplate } = options;
  if (chatTemplate !== undefined) entries.push(['tokenizer.chat_template', string(chatTemplate)]);
  if (toolTemplate !== undefined) {
    entries.push(['tokenizer.chat_templates', { kind: 'strings', value: ['tool_use'] }]);
    entries.push(['tokenizer.chat_template.tool_use', string(toolTemplate)]);
  }
  return entries;
}

function checkTokenizer(file: string, json: unknown): TokenizerJson {
  // The kind comes first: others have a vocabulary of another shape.
  const kind = kindSchema.safeParse(json).data?.model.type ?? 'BPE';
  if (kind !== 'BPE') {
    throw new UnsupportedModelError(`${file}: a ${show(kind)} tokenizer is not supported, only BPE is`);
  }
  const parsed = fileSchema.safeParse(json);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  throw new CheckpointError(file, `is not a tokenizer: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`);
}

/** A vocabulary of the right size without meaning, for checkpoints without a tokenizer: they are run on token ids. */
export function placeholderVocabulary(vocab: number): GgufMetadata {
  const tokens = Array.from({ length: vocab }, (_, index) => `<token_${index}>`);
  return [
    ['tokenizer.ggml.model', { kind: 'string', value: 'gpt2' }],
    ['tokenizer.ggml.pre', { kind: 'string', value: 'default' }],
    ['tokenizer.ggml.tokens', { kind: 'strings', value: tokens }],
    ['tokenizer.ggml.token_type', { kind: 'i32s', value: tokens.map(() => types.normal) }],
    ['tokenizer.ggml.merges', { kind: 'strings', value: [] }],
    ['tokenizer.ggml.add_bos_token', { kind: 'bool', value: false }],
  ];
}

function listTokens(json: TokenizerJson, vocab: number): { tokens: string[]; tokenTypes: number[] } {
  const tokens = Array.from({ length: vocab }, (_, index) => `[PAD${index}]`);
  const tokenTypes = new Array<number>(vocab).fill(types.unused);
  // Ids beyond the embedding exist in some tokenizers; the model can neither read nor write them.
  const put = (index: number, text: string, type: number): void => {
    if (index >= vocab) return;
    tokens[index] = text;
    tokenTypes[index] = type;
  };
  const fallback = json.model.byte_fallback === true;
  for (const [text, index] of Object.entries(json.model.vocab)) {
    put(index, text, fallback && /^<0x[0-9A-F]{2}>$/.test(text) ? types.byte : types.normal);
  }
  for (const { id: index, content, special } of json.added_tokens ?? []) {
    const type = content === json.model.unk_token ? types.unknown : special ? types.control : types.userDefined;
    put(index, content, type);
  }
  return { tokens, tokenTypes };
}

/** Minus the rank of the first merge that makes the token. */
function scoresOf(tokens: readonly string[], merges: TokenizerJson['model']['merges']): number[] {
  const ranks = new Map<string, number>();
  merges.forEach((pair, rank) => {
    const text = typeof pair === 'string' ? pair.replace(' ', '') : pair.join('');
    if (!ranks.has(text)) ranks.set(text, rank);
  });
  return tokens.map((token) => {
    const rank = ranks.get(token);
    return rank === undefined ? lowestScore : 0 - rank;
  });
}

/** `left right`; a space inside a part is written as the converter writes it, since the first one separates. */
function mergeText(pair: string | [string, string]): string {
  if (typeof pair === 'string') return pair;
  return pair.map((part) => part.replaceAll(' ', String.fromCharCode(0x120))).join(' ');
}

/**
 * The name under which llama.cpp knows how text is cut into words. It compiles these in, so an unknown one can only be
 * its default; token ids are right in any case.
 */
function preTokenizerName(preTokenizer: unknown): string {
  const text = JSON.stringify(preTokenizer ?? null);
  if (text.includes(String.raw`\\p{N}{1,3}`)) return 'llama-bpe';
  if (text.includes('(?i:') && text.includes(String.raw`\\p{N}|`)) return 'qwen2';
  if (text.includes('"Digits"')) return 'smollm';
  return text.includes('"Regex"') ? 'default' : 'gpt-2';
}

/** Whether a component, or one inside of it, is of this type. */
function mentions(component: unknown, type: string): boolean {
  return JSON.stringify(component ?? null).includes(`"type":"${type}"`);
}

const templateSchema = z.looseObject({ single: z.array(z.looseObject({ SpecialToken: z.unknown().optional() })) });
const sequenceSchema = z.looseObject({ processors: z.array(z.unknown()) });

/** Whether the post-processor puts a token, which is BOS, in front. */
function addsToken(postProcessor: unknown): boolean {
  const sequence = sequenceSchema.safeParse(postProcessor);
  if (sequence.success) return sequence.data.processors.some(addsToken);
  const template = templateSchema.safeParse(postProcessor);
  return template.success && template.data.single[0]?.SpecialToken !== undefined;
}

/** Whether a space is put before the text, by a normalizer or by the pre-tokenizer. */
function addsSpace(json: TokenizerJson): boolean {
  if (mentions(json.normalizer, 'Prepend')) return true;
  return mentions(json.pre_tokenizer, 'Metaspace') && !JSON.stringify(json.pre_tokenizer).includes('"never"');
}
