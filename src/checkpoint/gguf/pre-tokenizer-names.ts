/**
 * How byte-level tokenizers cut text into words, by the names that `tokenizer.ggml.pre` has: the file does not hold the
 * patterns, every reader must know them. They are those of the models' own tokenizer.json, as llama.cpp has them too
 * (llama-vocab.cpp).
 */

const gpt2 = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)`;

/** Contractions in any case, words with one sign before them, numbers, signs with the line ends behind them, space. */
const cl100k = (numbers: string): string =>
  String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|${numbers}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

const tekken = String.raw`[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`;

type Cut = 'gpt2' | 'digits' | 'default' | 'llama3' | 'qwen2' | 'tekken';

const names: ReadonlyMap<string, Cut> = new Map<string, Cut>([
  ['default', 'default'],
  ...['gpt-2', 'phi-2', 'olmo', 'mpt', 'jina-es', 'jina-de', 'gigachat'].map((name) => [name, 'gpt2'] as const),
  ...['smollm', 'starcoder', 'refact', 'command-r', 'codeshell', 'exaone', 'minerva-7b'].map(
    (name) => [name, 'digits'] as const,
  ),
  ...['llama-bpe', 'llama3', 'llama-v3', 'falcon3', 'lfm2', 'pixtral'].map((name) => [name, 'llama3'] as const),
  ...['qwen2', 'deepseek-r1-qwen', 'stablelm2', 'megrez'].map((name) => [name, 'qwen2'] as const),
  ['tekken', 'tekken'],
]);

/** The pre-tokenizer of tokenizer.json, or undefined for a name that is not known. */
export function preTokenizerOf(name: string): object | undefined {
  const cut = names.get(name);
  switch (cut) {
    case undefined:
      return undefined;
    case 'gpt2':
      return byteLevel(true);
    case 'digits':
      return sequence({ type: 'Digits', individual_digits: true }, byteLevel(true));
    case 'default':
      return sequence(
        split(String.raw`[\p{P}\$\+<=>\^~\|]+`),
        split(gpt2),
        split(String.raw`\p{N}+`),
        split('[0-9][0-9][0-9]'),
        byteLevel(false),
      );
    case 'llama3':
      return sequence(split(cl100k(String.raw`\p{N}{1,3}`)), byteLevel(false));
    case 'qwen2':
      return sequence(split(cl100k(String.raw`\p{N}`)), byteLevel(false));
    case 'tekken':
      return sequence(split(tekken), byteLevel(false));
    default:
      return cut satisfies never;
  }
}

/** A word that is a token is taken whole, whatever the merges say. */
export function keepsWholeWords(name: string): boolean {
  const cut = names.get(name);
  return cut === 'llama3' || cut === 'tekken';
}

/** Where the file does not say whether BOS is put in front. */
export function addsBosByDefault(name: string): boolean {
  return keepsWholeWords(name);
}

function split(pattern: string): object {
  return { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false };
}

function byteLevel(words: boolean): object {
  return { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: words };
}

function sequence(...pretokenizers: readonly object[]): object {
  return { type: 'Sequence', pretokenizers };
}
