/** Tokenizers that went into a GGUF file and came back: text becomes the same ids, and ids the same text. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { byteLevelJson, gemmaLikeJson, pieceJson } from './text/tiny-tokenizers.js';
import { createTokenizer, type Tokenizer } from '../src/text/tokenizer.js';
import { CheckpointError, UnsupportedModelError } from '../src/util/errors.js';
import { encodeHeader, type GgufMetadata, type GgufValue } from '../src/checkpoint/gguf/format.js';
import { openGguf } from '../src/checkpoint/gguf/parse.js';
import { readTokenizer, type GgufTokenizer } from '../src/checkpoint/gguf/read-tokenizer.js';
import { vocabularyMetadata } from '../src/checkpoint/gguf/vocabulary.js';

const directory = mkdtempSync(join(tmpdir(), 'kloop-gguf-tokenizer-'));
afterAll(() => rmSync(directory, { recursive: true }));
let count = 0;

function through(metadata: GgufMetadata): GgufTokenizer {
  const path = join(directory, `${count++}.gguf`);
  writeFileSync(path, encodeHeader(metadata, []));
  const file = openGguf(path);
  try {
    return readTokenizer(file);
  } finally {
    file.close();
  }
}

/** What comes back of a tokenizer.json. */
function roundTrip(json: object, vocab: number): { before: Tokenizer; after: Tokenizer; read: GgufTokenizer } {
  const read = through(vocabularyMetadata('tokenizer.json', { vocab, bos: undefined, eos: undefined, json }));
  return { before: createTokenizer('before', json), after: createTokenizer('after', read.json, read.config), read };
}

const texts = [
  'hello world',
  ' hello  hello\n123 world',
  'He said: "ünïcödé 😀, 12345!"',
  '',
  '  ',
  'x\r\n\r\ny',
  'hellohello',
];

/** Without BOS: the writer only knows that some token comes first where it is told its id. */
function expectSame(before: Tokenizer, after: Tokenizer, samples: readonly string[]): void {
  for (const text of samples) {
    const ids = before.encode(text, { addSpecial: false });
    expect(after.encode(text, { addSpecial: false }), JSON.stringify(text)).toEqual(ids);
    expect(after.decode(ids)).toBe(before.decode(ids));
  }
}

describe('tokenizers of both kinds come back', () => {
  test('byte-level BPE', () => {
    const json = byteLevelJson();
    const { before, after } = roundTrip(json, createTokenizer('x', json).vocabSize);
    expectSame(before, after, [...texts, '<|end|>hello<think>']);
    const special = before.tokenId('<|end|>')!;
    expect(after.isSpecial(special)).toBe(true);
    expect(after.isSpecial(before.tokenId('<think>')!)).toBe(false);
    expect(after.vocabSize).toBe(before.vocabSize);
  });

  test.each([
    ['SentencePiece', pieceJson()],
    ['SentencePiece without a space in front', gemmaLikeJson()],
  ])('%s', (_, json) => {
    const { before, after } = roundTrip(json, createTokenizer('x', json).vocabSize);
    expectSame(before, after, texts);
    expect(after.leadingSpaces).toBe(before.leadingSpaces);
  });

  test('that of the bundled model, with more ids than tokens', () => {
    const demo = fileURLToPath(new URL('../demo/tokenizer.json', import.meta.url));
    const json = JSON.parse(readFileSync(demo, 'utf8')) as object;
    const { before, after } = roundTrip(json, createTokenizer('x', json).vocabSize + 5);
    expectSame(before, after, [...texts, 'Once upon a time, there was a little girl.']);
    expect(after.vocabSize).toBe(before.vocabSize);
  });
});

/** Four letters and special tokens. */
const strings = (...value: string[]): GgufValue => ({ kind: 'strings', value });
const string = (value: string): GgufValue => ({ kind: 'string', value });
const tokens = ['<s>', 'a', 'b', 'ab', '<|im_end|>', '</s>'];
const plain: GgufMetadata = [
  ['tokenizer.ggml.model', string('gpt2')],
  ['tokenizer.ggml.pre', string('qwen2')],
  ['tokenizer.ggml.tokens', strings(...tokens)],
  ['tokenizer.ggml.token_type', { kind: 'i32s', value: [3, 1, 1, 1, 3, 3] }],
  ['tokenizer.ggml.merges', strings('a b')],
  ['tokenizer.ggml.bos_token_id', { kind: 'u32', value: 0 }],
  ['tokenizer.ggml.eos_token_id', { kind: 'u32', value: 5 }],
];
/** With keys replaced, added, or (undefined) left out. */
function changed(changes: Readonly<Record<string, GgufValue | undefined>>): GgufMetadata {
  const keys = Object.fromEntries(Object.entries(changes).map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
  const merged = { ...Object.fromEntries(plain), ...keys };
  return Object.entries(merged).flatMap(([key, value]) => (value === undefined ? [] : [[key, value] as const]));
}

describe('metadata', () => {
  test('names the ends of a text, BOS and the template', () => {
    const read = through([
      ...plain,
      ['tokenizer.chat_template', string('{{ messages }}')],
      ['tokenizer.chat_template.tool_use', string('{{ tools }}')],
    ]);
    expect(read.generation).toEqual({ eos: [5, 4], bos: 0 });
    expect(read.config).toEqual({ bos_token: '<s>', eos_token: '</s>' });
    expect([read.chatTemplate, read.toolTemplate]).toEqual(['{{ messages }}', '{{ tools }}']);
    expect(through(changed({ eot_token_id: { kind: 'u32', value: 3 } })).generation.eos).toEqual([5, 3, 4]);
    expect(through(changed({ eos_token_id: { kind: 'u32', value: 0xffffffff } })).generation.eos).toEqual([4]);
    // What Qwen and Llama 3 end a text with that is no turn: their generation_config.json names both.
    const two = ['<|im_end|>', '<|endoftext|>', '<|end_of_text|>', 'a', 'b', 'ab'];
    const types: GgufValue = { kind: 'i32s', value: [3, 3, 3, 1, 1, 1] };
    const first: GgufValue = { kind: 'u32', value: 0 };
    const ends = through(changed({ tokens: strings(...two), token_type: types, eos_token_id: first })).generation.eos;
    expect(ends).toEqual([0, 1, 2]);
  });

  test('says whether BOS comes first; where it does not, the kind does', () => {
    const encode = (metadata: GgufMetadata) => {
      const { json, config } = through(metadata);
      return createTokenizer('x', json, config).encode('ab');
    };
    expect(encode(plain)).toEqual([3]);
    expect(encode(changed({ add_bos_token: { kind: 'bool', value: true } }))).toEqual([0, 3]);
    expect(encode(changed({ pre: string('llama-bpe') }))).toEqual([0, 3]);
    const scores: GgufValue = { kind: 'f32s', value: [0, -1, -2, -3, 0, 0] };
    const sentencePiece = { model: string('llama'), scores, add_space_prefix: { kind: 'bool', value: false } as const };
    expect(encode(changed(sentencePiece))).toEqual([0, 3]);
  });

  test('knows digits, groups of three and single ones, by the name of the pre-tokenizer', () => {
    const digits = ['<s>', ...Array.from('0123456789'), '12', '123', '1234'];
    const cut = (pre: string) => {
      const { json, config } = through(
        changed({
          pre: string(pre),
          tokens: strings(...digits),
          token_type: undefined,
          merges: strings('1 2', '12 3', '123 4'),
          eos_token_id: undefined,
          add_bos_token: { kind: 'bool', value: false },
        }),
      );
      return createTokenizer('x', json, config).encode('12345');
    };
    expect(cut('gpt-2')).toEqual([13, 6]);
    expect(cut('llama-bpe')).toEqual([12, 5, 6]);
    expect(cut('qwen2')).toEqual([2, 3, 4, 5, 6]);
    expect(cut('smollm')).toEqual([2, 3, 4, 5, 6]);
    expect(cut('default')).toEqual([12, 5, 6]);
  });

  test('does not take minutes for a vocabulary of long words', () => {
    const long = Array.from({ length: 1200 }, (_, i) => String(i).padStart(1000, 'a'));
    const scores: GgufValue = { kind: 'f32s', value: long.map((_, i) => -i) };
    const metadata = changed({
      ...{ model: string('llama'), tokens: strings(...long), token_type: undefined, scores },
      ...{ bos_token_id: undefined, eos_token_id: undefined },
    });
    expect(() => through(metadata)).toThrow(/"tokenizer.ggml.tokens" holds too many long tokens/);
  });

  test.each<[string, Parameters<typeof changed>[0], typeof CheckpointError | typeof UnsupportedModelError, RegExp]>([
    ['another kind', { model: string('t5') }, UnsupportedModelError, /kind "t5"/],
    ['no kind', { model: undefined }, UnsupportedModelError, /kind undefined/],
    ['a pre-tokenizer without a known pattern', { pre: string('evil') }, UnsupportedModelError, /pre-tokenizer "evil"/],
    ['no tokens', { tokens: undefined }, CheckpointError, /ggml.tokens" is missing/],
    ['tokens that are numbers', { tokens: string('a') }, CheckpointError, /is not a list of strings/],
    ['a token of a novel', { tokens: strings('a'.repeat(2000)) }, CheckpointError, /token of 2000 characters/],
    ['types of other tokens', { token_type: { kind: 'i32s', value: [1] } }, CheckpointError, /1 entries for 6 tokens/],
    ['a merge of one', { merges: strings('ab') }, CheckpointError, /"ab", which is no pair/],
    ['an id out of range', { eos_token_id: { kind: 'u32', value: 6 } }, CheckpointError, /is "6", not one of 6/],
    ['no scores', { model: string('llama') }, CheckpointError, /scores" is missing/],
    [
      'a score that is no number',
      { model: string('llama'), scores: { kind: 'f32s', value: [0, NaN, 0, 0, 0, 0] } },
      CheckpointError,
      /not finite/,
    ],
    [
      'EOS at the end of a prompt',
      { add_eos_token: { kind: 'bool', value: true } },
      UnsupportedModelError,
      /ends every/,
    ],
  ])('refuses %s', (_, changes, kind, message) => {
    expect(() => through(changed(changes))).toThrow(kind);
    expect(() => through(changed(changes))).toThrow(message);
  });
});
