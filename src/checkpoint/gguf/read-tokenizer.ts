/**
 * GGUF's tokenizer metadata as the tokenizer.json that it came from: the way back of vocabulary.ts. The kind `gpt2` is
 * byte-level BPE, whose cutting into words is known by name only (pre-tokenizer-names.ts); the kind `llama` is
 * SentencePiece BPE, where a token's score says how early its parts are merged.
 */
import { show } from '../../util/checked.js';
import { CheckpointError, UnsupportedModelError } from '../../util/errors.js';
import type { GenerationDefaults } from '../generation.js';
import type { MetadataValue } from './header-reader.js';
import type { GgufFile } from './parse.js';
import { addsBosByDefault, keepsWholeWords, preTokenizerOf } from './pre-tokenizer-names.js';

export interface GgufTokenizer {
  /** As tokenizer.json. */
  readonly json: object;
  /** As tokenizer_config.json: the texts of special tokens. */
  readonly config: Readonly<Record<string, string>>;
  readonly generation: GenerationDefaults;
  readonly chatTemplate?: string;
  /** Of conversations with tools, where that is another. */
  readonly toolTemplate?: string;
}

/** llama_token_type */
const types = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

const maxTokens = 4_000_000;
const maxTokenLength = 1024;
/** Squares of the lengths of tokens, in all: a second or two. A quarter of a million tokens of published models have 2e7. */
const maxMergeWork = 1e9;
/** Tokens that end a turn or a text in published models: a file names only one of them. */
const ends: readonly string[] = [
  ...['<|eot_id|>', '<|eom_id|>', '<|im_end|>', '<|end|>', '<end_of_turn>'],
  ...['<|endoftext|>', '<|end_of_text|>'],
];

/** Throws CheckpointError where the metadata is broken, UnsupportedModelError for other kinds of tokenizers. */
export function readTokenizer(file: GgufFile): GgufTokenizer {
  const read = new TokenizerReader(file);
  const kind = read.text('model');
  if (kind !== 'gpt2' && kind !== 'llama') {
    throw new UnsupportedModelError(`${file.path}: a tokenizer of the kind ${show(kind)} is not supported`, {
      hint: 'known are gpt2 (byte-level BPE) and llama (SentencePiece)',
    });
  }
  const vocabulary = readVocabulary(read);
  const bos = read.id('bos', vocabulary.tokens);
  const eos = read.id('eos', vocabulary.tokens);
  const pre = read.text('pre') ?? 'default';
  const addsBos = read.flag('add_bos_token') ?? (kind === 'llama' || addsBosByDefault(pre));
  const front = addsBos && bos !== undefined ? vocabulary.tokens[bos]! : undefined;
  if (read.flag('add_eos_token') === true) {
    throw new UnsupportedModelError(`${file.path}: a tokenizer that ends every text is not supported`);
  }
  const json =
    kind === 'gpt2' ? byteLevelJson(read, vocabulary, pre, front) : sentencePieceJson(read, vocabulary, front);
  const chatTemplate = file.metadata.get('tokenizer.chat_template');
  const toolTemplate = file.metadata.get('tokenizer.chat_template.tool_use');
  const named = { bos_token: bos, eos_token: eos, unk_token: read.id('unknown', vocabulary.tokens) };
  const texts = Object.entries(named).flatMap(([role, id]) =>
    id === undefined ? [] : [[role, vocabulary.tokens[id]!]],
  );
  return {
    json,
    config: Object.fromEntries(texts) as Record<string, string>,
    generation: { eos: endsOf(read, vocabulary, eos), ...(bos === undefined ? {} : { bos }) },
    ...(typeof chatTemplate === 'string' ? { chatTemplate } : {}),
    ...(typeof toolTemplate === 'string' ? { toolTemplate } : {}),
  };
}

interface Vocabulary {
  readonly tokens: readonly string[];
  readonly types: ArrayLike<number>;
}

function readVocabulary(read: TokenizerReader): Vocabulary {
  const tokens = read.texts('tokens');
  if (tokens === undefined || tokens.length === 0) throw read.fail('tokens', 'is missing');
  if (tokens.length > maxTokens)
    throw read.fail('tokens', `has ${tokens.length} entries, at most ${maxTokens} are read`);
  const long = tokens.find((token) => token.length > maxTokenLength);
  if (long !== undefined) throw read.fail('tokens', `holds a token of ${long.length} characters`);
  const tokenTypes = read.numbers('token_type', tokens.length) ?? new Uint8Array(tokens.length).fill(types.normal);
  return { tokens, types: tokenTypes };
}

/** Every id that ends a text: those that are named, and control tokens that are known by their text. */
function endsOf(read: TokenizerReader, { tokens, types: kinds }: Vocabulary, eos: number | undefined): number[] {
  const known = tokens.flatMap((token, id) => (kinds[id] === types.control && ends.includes(token) ? [id] : []));
  const ids = [eos, read.id('eot', tokens), read.id('eom', tokens), ...known];
  return [...new Set(ids.filter((id) => id !== undefined))];
}

/** The parts that both kinds have in common. Unused ids are left out: no text leads to them. */
function commonJson({ tokens, types: kinds }: Vocabulary, front: string | undefined) {
  const vocab = new Map<string, number>();
  const added: object[] = [];
  tokens.forEach((content, id) => {
    if (kinds[id] === types.unused) return;
    if (!vocab.has(content)) vocab.set(content, id);
    const special = kinds[id] === types.control || kinds[id] === types.unknown;
    if (special || kinds[id] === types.userDefined) added.push({ id, content, special, normalized: false });
  });
  return { vocab, added, postProcessor: front === undefined ? null : bosTemplate(front) };
}

function bosTemplate(token: string): object {
  return {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: token, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: {},
  };
}

function byteLevelJson(read: TokenizerReader, vocabulary: Vocabulary, pre: string, front: string | undefined): object {
  const { vocab, added, postProcessor } = commonJson(vocabulary, front);
  const preTokenizer = preTokenizerOf(pre);
  if (preTokenizer === undefined) {
    throw new UnsupportedModelError(`${read.path}: the pre-tokenizer ${show(pre)} is not supported`, {
      hint: 'use the safetensors checkpoint of the model, which describes it in full',
    });
  }
  return {
    added_tokens: added,
    normalizer: pre === 'qwen2' ? { type: 'NFC' } : null,
    pre_tokenizer: preTokenizer,
    post_processor: postProcessor,
    decoder: { type: 'ByteLevel' },
    model: {
      type: 'BPE',
      ignore_merges: keepsWholeWords(pre),
      vocab: asRecord(vocab),
      merges: (read.texts('merges') ?? []).map((merge) => splitMerge(read, merge)),
    },
  };
}

/** The parts of `left right`; the first space that is not the first character separates. */
function splitMerge(read: TokenizerReader, merge: string): [string, string] {
  const space = merge.indexOf(' ', 1);
  if (space < 0) throw read.fail('merges', `holds ${show(merge)}, which is no pair`);
  return [merge.slice(0, space), merge.slice(space + 1)];
}

function sentencePieceJson(read: TokenizerReader, vocabulary: Vocabulary, front: string | undefined): object {
  const { vocab, added, postProcessor } = commonJson(vocabulary, front);
  const { tokens, types: kinds } = vocabulary;
  const scores = read.numbers('scores', tokens.length);
  if (scores === undefined) throw read.fail('scores', 'is missing');
  const prefix = read.flag('add_space_prefix') ?? true;
  const unknown = read.id('unknown', tokens);
  const spaces = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
  const bytes = tokens.some((_, id) => kinds[id] === types.byte);
  return {
    added_tokens: added,
    normalizer: {
      type: 'Sequence',
      normalizers: [...(prefix ? [{ type: 'Prepend', prepend: '▁' }] : []), spaces],
    },
    pre_tokenizer: null,
    post_processor: postProcessor,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(prefix ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      ...(unknown === undefined ? {} : { unk_token: tokens[unknown] }),
      fuse_unk: true,
      byte_fallback: bytes,
      vocab: asRecord(vocab),
      merges: mergesByScore(read, vocabulary, vocab, scores),
    },
  };
}

/**
 * Every way to make a token of two others is a merge; tokens of higher scores are made first. (As in Hugging Face's
 * conversion of SentencePiece models.)
 */
function mergesByScore(
  read: TokenizerReader,
  { tokens, types: kinds }: Vocabulary,
  vocab: ReadonlyMap<string, number>,
  scores: ArrayLike<number>,
): [string, string][] {
  // A token is cut at each of its characters, and both parts are looked up.
  const work = tokens.reduce((sum, { length }) => sum + length * length, 0);
  if (work > maxMergeWork) throw read.fail('tokens', 'holds too many long tokens');
  const merges: { readonly left: string; readonly right: string; readonly score: number; readonly order: number }[] =
    [];
  tokens.forEach((token, id) => {
    if (kinds[id] !== types.normal || vocab.get(token) !== id) return;
    const ways: (readonly [string, string])[] = [];
    for (let i = 1; i < token.length; i += 1) {
      // Not between the halves of a surrogate pair: neither half is a token.
      const [left, right] = [token.slice(0, i), token.slice(i)];
      if (vocab.has(left) && vocab.has(right)) ways.push([left, right]);
    }
    ways.sort((a, b) => vocab.get(a[0])! - vocab.get(b[0])! || vocab.get(a[1])! - vocab.get(b[1])!);
    for (const [left, right] of ways) merges.push({ left, right, score: scores[id]!, order: merges.length });
  });
  merges.sort((a, b) => b.score - a.score || a.order - b.order);
  return merges.map(({ left, right }) => [left, right]);
}

/** Without a prototype, since `__proto__` may be a token. */
function asRecord(vocab: ReadonlyMap<string, number>): Record<string, number> {
  const record = Object.create(null) as Record<string, number>;
  for (const [token, id] of vocab) record[token] = id;
  return record;
}

/** Typed access to the keys `tokenizer.ggml.*`. */
class TokenizerReader {
  constructor(private readonly file: GgufFile) {}

  get path(): string {
    return this.file.path;
  }

  fail(key: string, message: string): CheckpointError {
    return new CheckpointError(this.file.path, `metadata "tokenizer.ggml.${key}" ${message}`);
  }

  text(key: string): string | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === 'string') return value;
    throw this.fail(key, 'is not a string');
  }

  flag(key: string): boolean | undefined {
    const value = this.get(key);
    if (value === undefined || typeof value === 'boolean') return value;
    throw this.fail(key, 'is neither true nor false');
  }

  texts(key: string): readonly string[] | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    if (isTexts(value)) return value;
    throw this.fail(key, 'is not a list of strings');
  }

  numbers(key: string, length: number): Int32Array | Float32Array | Uint32Array | undefined {
    const value = this.get(key);
    if (value === undefined) return undefined;
    const fits = value instanceof Int32Array || value instanceof Uint32Array || value instanceof Float32Array;
    if (!fits) throw this.fail(key, 'is not a list of numbers');
    if (value.length !== length) throw this.fail(key, `has ${value.length} entries for ${length} tokens`);
    if (!value.every((number) => Number.isFinite(number))) throw this.fail(key, 'holds a number that is not finite');
    return value;
  }

  /** The token of a role, or undefined where the file has none. */
  id(role: string, tokens: readonly string[]): number | undefined {
    const key = `${role}_token_id`;
    const value = this.get(key);
    // Some converters write all bits set for "none".
    if (value === undefined || value === 0xffff_ffff || value === -1) return undefined;
    if (typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < tokens.length) return value;
    throw this.fail(key, `is ${show(String(value))}, not one of ${tokens.length} tokens`);
  }

  private get(key: string): MetadataValue | undefined {
    return this.file.metadata.get(`tokenizer.ggml.${key}`);
  }
}

function isTexts(value: MetadataValue): value is readonly string[] {
  return Array.isArray(value);
}
