/**
 * Reads and checks tokenizer.json: structure, sizes, ids, and that every component is one that the library below us
 * computes as the format's reference implementation (Hugging Face `tokenizers`, Rust) does. What it does not is refused
 * or, in pre-tokenizers.ts, rewritten. Regular expressions stay as they are: they run under a time limit.
 */
import { readFileSync, statSync } from 'node:fs';
import { z } from 'zod';
import { show } from '../util/checked.js';
import { CheckpointError, messageOf, UnsupportedModelError } from '../util/errors.js';
import { checkNormalizer, checkPostProcessor, componentSchema } from './tokenizer-components.js';
import { rewritePreTokenizer, splitAtSpaces } from './pre-tokenizers.js';
import { readDecoder, type TokenRule } from './token-bytes.js';

/** Limits on hostile input: bytes of the file, ids, UTF-16 units of a text to encode, milliseconds. */
export interface TokenizerLimits {
  readonly fileBytes: number;
  readonly vocabSize: number;
  readonly textLength: number;
  readonly loadMs: number;
  readonly encodeMs: number;
}

export const tokenizerLimits: TokenizerLimits = {
  fileBytes: 128 * 1024 * 1024,
  vocabSize: 1 << 22,
  textLength: 1024 * 1024,
  loadMs: 60_000,
  encodeMs: 60_000,
};

/** A checked tokenizer.json. */
export interface TokenizerFile {
  /** What the library is given. */
  readonly json: object;
  /** Names by id, with holes; where two names share an id, the added token, then the later one. */
  readonly names: readonly (string | undefined)[];
  readonly added: ReadonlySet<number>;
  readonly special: ReadonlySet<number>;
  readonly rule: TokenRule;
}

const fileSchema = z.looseObject({
  added_tokens: z
    .array(z.looseObject({ id: z.number(), content: z.string().max(1024), special: z.boolean().default(false) }))
    .nullish(),
  normalizer: componentSchema.nullish(),
  pre_tokenizer: componentSchema.nullish(),
  post_processor: componentSchema.nullish(),
  decoder: componentSchema.nullish(),
  model: z.looseObject({
    type: z.string().max(64).nullish(),
    vocab: z.unknown().optional(),
    merges: z.unknown().optional(),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
    end_of_word_suffix: z.string().nullish(),
  }),
});
type RawFile = z.infer<typeof fileSchema>;

/** Parses the bytes of `file`. Throws CheckpointError when it is missing, too large, or not JSON. */
export function readTokenizerJson(file: string, limits: TokenizerLimits): unknown {
  try {
    const { size } = statSync(file);
    if (size > limits.fileBytes) throw new Error(`${size} bytes, at most ${limits.fileBytes} are allowed`);
    return JSON.parse(readFileSync(file, 'utf8')) as unknown;
  } catch (error) {
    throw new CheckpointError(file, `cannot be read as a tokenizer: ${messageOf(error)}`, {
      hint: 'use the tokenizer.json that belongs to the model',
      cause: error,
    });
  }
}

/** Checks a parsed tokenizer.json; `file` names it in errors, `config` is the parsed tokenizer_config.json, if any. */
export function checkTokenizerJson(file: string, raw: unknown, config: object, limits: TokenizerLimits): TokenizerFile {
  const parsed = fileSchema.safeParse(raw);
  if (!parsed.success) {
    const issue = parsed.error.issues[0];
    throw new CheckpointError(file, `is not a tokenizer: ${issue?.path.join('.') ?? ''}: ${issue?.message ?? ''}`, {
      hint: 'use the tokenizer.json that belongs to the model',
    });
  }
  const data = parsed.data;
  const { model } = data;
  if (model.type != null && model.type !== 'BPE') {
    throw new UnsupportedModelError(`${file}: a ${JSON.stringify(model.type)} tokenizer is not supported, only BPE is`);
  }
  if (model.continuing_subword_prefix || model.end_of_word_suffix) {
    throw new UnsupportedModelError(`${file}: BPE with a subword prefix or word suffix is not supported`);
  }
  const vocab = checkVocab(file, model.vocab);
  const names: string[] = [];
  for (const name of Object.keys(vocab)) names[checkId(file, vocab[name], limits)] = name;
  const merges = checkMerges(file, model.merges);
  const rule = readDecoder(file, data.decoder);
  const preTokenizer = rewritePreTokenizer(file, data.pre_tokenizer ?? null);
  const addedTokens = collectAdded(file, data, vocab, config, limits);
  for (const token of addedTokens) names[token.id] = token.content;
  const addedNames = new Set(addedTokens.map((token) => token.content));
  const isKnown = (name: string): boolean => addedNames.has(name) || Object.hasOwn(vocab, name);
  if (model.unk_token != null && !isKnown(model.unk_token)) {
    throw new CheckpointError(file, 'model.unk_token is not in the vocabulary');
  }
  checkNormalizer(file, data.normalizer ?? null);
  checkPostProcessor(file, data.post_processor ?? null, isKnown);
  return {
    json: {
      added_tokens: addedTokens,
      normalizer: data.normalizer ?? null,
      pre_tokenizer: rule.kind === 'text' ? splitAtSpaces(preTokenizer, merges) : preTokenizer,
      post_processor: data.post_processor ?? null,
      decoder: data.decoder ?? null,
      model: { ...model, type: 'BPE', unk_token: model.unk_token ?? undefined },
    },
    names,
    added: new Set(addedTokens.map((token) => token.id)),
    special: new Set(addedTokens.filter((token) => token.special).map((token) => token.id)),
    rule,
  };
}

function checkVocab(file: string, vocab: unknown): Readonly<Record<string, unknown>> {
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab)) {
    throw new CheckpointError(file, 'model.vocab is not a table of tokens');
  }
  return vocab as Record<string, unknown>;
}

function checkId(file: string, id: unknown, limits: TokenizerLimits): number {
  if (typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < limits.vocabSize) return id;
  throw new CheckpointError(file, `the vocabulary holds the token id ${show(id)}`, {
    hint: `ids are integers from 0 to ${limits.vocabSize - 1}`,
  });
}

/** All pairs, or all strings 'left right', as the two versions of the format have it. */
function checkMerges(file: string, merges: unknown): readonly (string | readonly string[])[] {
  const schema = z.union([z.array(z.string().regex(/^[^ ]+ [^ ]+$/)), z.array(z.tuple([z.string(), z.string()]))]);
  const parsed = schema.safeParse(merges);
  if (!parsed.success) throw new CheckpointError(file, 'model.merges is not a list of pairs');
  return parsed.data;
}

interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

/** The file's added tokens, and those that tokenizer_config.json declares special (`eos_token` and so on). */
function collectAdded(
  file: string,
  data: RawFile,
  vocab: Readonly<Record<string, unknown>>,
  config: object,
  limits: TokenizerLimits,
): AddedToken[] {
  const declared = new Set(specialTexts(config));
  const tokens: AddedToken[] = [];
  for (const token of data.added_tokens ?? []) {
    if (token.content === '') continue;
    checkId(file, token.id, limits);
    tokens.push({ ...token, special: token.special || declared.has(token.content) });
    declared.delete(token.content);
  }
  for (const content of declared) {
    if (Object.hasOwn(vocab, content))
      tokens.push({ id: checkId(file, vocab[content], limits), content, special: true });
  }
  return tokens;
}

function specialTexts(config: object): string[] {
  const roles = new Map<string, unknown>(Object.entries(config));
  const extra = roles.get('additional_special_tokens');
  return ['bos_token', 'eos_token', 'unk_token', 'pad_token']
    .map((role) => roles.get(role))
    .concat(Array.isArray(extra) ? extra : [])
    .map((token) => {
      const content: unknown =
        typeof token === 'object' && token !== null && 'content' in token ? token.content : token;
      return typeof content === 'string' ? content : '';
    })
    .filter((content) => content !== '');
}
