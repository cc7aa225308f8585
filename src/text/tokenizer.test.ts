import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer as Library } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  byteId,
  byteLevelAlphabet,
  byteLevelBase,
  byteLevelJson,
  gemmaLikeJson,
  metaspaceJson,
  pieceId,
  pieceJson,
} from '../../tests/text/tiny-tokenizers.js';
import { CheckpointError, UnsupportedModelError, UsageError } from '../util/errors.js';
import { createTokenizer, loadTokenizer } from './tokenizer.js';

type LibraryClass = new (
  json: object,
  config: object,
) => {
  encode(text: string, options: object): { ids: number[] };
  decode(ids: readonly number[], options: object): string;
};
const library = (json: object): InstanceType<LibraryClass> => new (Library as LibraryClass)(json, {});

const utf8 = (text: string): number[] => [...new TextEncoder().encode(text)];
const bare = { addSpecial: false };
const wellFormed = fc.string({ unit: 'binary', maxLength: 40 });

describe('byte-level BPE', () => {
  const tokenizer = createTokenizer('tiny', byteLevelJson());
  const id = (n: number): number => 256 + n;

  test('merges by hand', () => {
    // hello; ' world' = Ġworld; '12345' is cut into 123 and 45 before any merge
    expect(tokenizer.encode('hello world', bare)).toEqual([id(3), id(8)]);
    expect(tokenizer.encode('help', bare)).toEqual([id(0), 0x6c, 0x70]);
    expect(tokenizer.encode('12345', bare)).toEqual([id(11), 0x34, 0x35]);
    expect(tokenizer.encode('', bare)).toEqual([]);
  });

  test('special tokens', () => {
    expect(tokenizer.encode('hello')).toEqual([byteLevelBase, id(3)]);
    expect(tokenizer.encode('')).toEqual([byteLevelBase]);
    expect(tokenizer.encode('hello<|end|>hello', bare)).toEqual([id(3), byteLevelBase + 1, id(3)]);
    const ids = [byteLevelBase, id(3), byteLevelBase + 1, byteLevelBase + 2];
    expect(tokenizer.decode(ids)).toBe('hello<think>');
    expect(tokenizer.decode(ids, { skipSpecial: false })).toBe('<|begin|>hello<|end|><think>');
    expect([byteLevelBase + 1, byteLevelBase + 2, 5].map((each) => tokenizer.isSpecial(each))).toEqual([
      true,
      false,
      false,
    ]);
    expect(tokenizer.tokenId('<|end|>')).toBe(byteLevelBase + 1);
    expect(tokenizer.tokenId('nowhere')).toBeUndefined();
    expect(tokenizer.vocabSize).toBe(byteLevelBase + 4);
  });

  test('bytes of tokens', () => {
    for (let byte = 0; byte < 256; byte++) expect([...tokenizer.bytesOf(byte)]).toEqual([byte]);
    expect([...tokenizer.bytesOf(id(8))]).toEqual(utf8(' world'));
    expect([...tokenizer.bytesOf(id(9))]).toEqual([0xf0, 0x9f]);
    // An added token is text, although its characters are in the byte table.
    expect([...tokenizer.bytesOf(byteLevelBase + 3)]).toEqual(utf8('é|é'));
    for (const unknown of [99_999, -1, 1.5, Number.NaN]) expect(tokenizer.bytesOf(unknown)).toHaveLength(0);
  });

  test('a name outside the byte table is plain text', () => {
    const vocab = Object.fromEntries([...byteLevelAlphabet(), '日 本'].map((name, i) => [name, i]));
    const json = byteLevelJson({ model: { type: 'BPE', vocab, merges: [] }, added_tokens: [], post_processor: null });
    const other = createTokenizer('tiny', json);
    expect(other.decode([256])).toBe('日 本');
  });

  test('without merges the ids are the bytes', () => {
    const vocab = Object.fromEntries(byteLevelAlphabet().map((name, byte) => [name, byte]));
    const json = byteLevelJson({ model: { type: 'BPE', vocab, merges: [] }, added_tokens: [], post_processor: null });
    const bytes = createTokenizer('tiny', json);
    fc.assert(
      fc.property(wellFormed, (text) => {
        expect(bytes.encode(text)).toEqual(utf8(text));
      }),
    );
  });

  test('decode(encode(text)) is the text', () => {
    const text = fc.oneof(wellFormed, fc.stringMatching(/^[helo wrd123😀<|>]{0,60}$/u));
    fc.assert(fc.property(text, (each) => tokenizer.decode(tokenizer.encode(each), { skipSpecial: true }) === each));
  });

  test('a lone surrogate is U+FFFD', () => {
    expect(tokenizer.decode(tokenizer.encode('a\ud800b'))).toBe('a\ufffdb');
  });
});

describe('SentencePiece-style BPE', () => {
  const tokenizer = createTokenizer('tiny', pieceJson());

  test('by hand: a space goes in front, unknown characters become bytes', () => {
    expect(tokenizer.encode('hello world')).toEqual([1, pieceId('▁hello'), pieceId('▁world')]);
    expect(tokenizer.encode('hello  world', bare)).toEqual([pieceId('▁hello'), pieceId('▁'), pieceId('▁world')]);
    expect(tokenizer.encode('é.', bare)).toEqual([pieceId('▁'), byteId(0xc3), byteId(0xa9), pieceId('.')]);
    expect(tokenizer.encode('hello</s>hello', bare)).toEqual([pieceId('▁hello'), 2, pieceId('▁hello')]);
    expect(tokenizer.decode([1, pieceId('▁hello'), pieceId('▁world')])).toBe('hello world');
    expect(tokenizer.decode([pieceId('▁▁'), pieceId('hello')])).toBe(' hello');
    expect(tokenizer.decode([1, pieceId('▁hello')], { skipSpecial: false })).toBe('<s> hello');
  });

  test('bytes of tokens', () => {
    expect([...tokenizer.bytesOf(pieceId('▁hello'))]).toEqual(utf8(' hello'));
    expect([...tokenizer.bytesOf(byteId(0xe2))]).toEqual([0xe2]);
    expect([...tokenizer.bytesOf(1)]).toEqual(utf8('<s>'));
  });

  test('without an artificial space', () => {
    const gemma = createTokenizer('tiny', gemmaLikeJson());
    expect(gemma.leadingSpaces).toBe(0);
    expect(gemma.encode('hello world', bare)).toEqual([pieceId('hello'), pieceId('▁world')]);
    expect(gemma.decode([pieceId('▁hello')])).toBe(' hello');
  });

  test('a space by the pre-tokenizer, only at the start of the text', () => {
    for (const split of [true, false]) {
      const metaspace = createTokenizer('tiny', metaspaceJson(split));
      expect(metaspace.encode('hello</s>hello world', bare)).toEqual([
        pieceId('▁hello'),
        2,
        pieceId('hello'),
        pieceId('▁world'),
      ]);
    }
  });

  test('Metaspace splits between spaces, where merges could join them', () => {
    const ids = (split: boolean): number[] => createTokenizer('tiny', metaspaceJson(split)).encode('hello   ', bare);
    expect(ids(false)).toEqual([pieceId('▁hello'), pieceId('▁▁'), pieceId('▁')]);
    expect(ids(true)).toEqual([pieceId('▁hello'), pieceId('▁'), pieceId('▁'), pieceId('▁')]);
  });

  test('splitting into words does not change the ids', () => {
    const text = fc.oneof(wellFormed, fc.stringMatching(/^[helo wrd.▁é]{0,80}$/u));
    for (const json of [pieceJson(), gemmaLikeJson(), metaspaceJson(false)]) {
      const ours = createTokenizer('tiny', json);
      const whole = library(json);
      fc.assert(
        fc.property(text, (each) => {
          expect(ours.encode(each, bare)).toEqual(whole.encode(each, { add_special_tokens: false }).ids);
        }),
      );
    }
  });

  test('a merge over a word border forbids the split', () => {
    const base = pieceJson();
    const model = base['model'] as { vocab: Record<string, number>; merges: string[][] };
    const vocab = { ...model.vocab, 'o▁': 1000 };
    const json = { ...base, model: { ...model, vocab, merges: [['o', '▁'], ...model.merges] } };
    expect(createTokenizer('tiny', json).encode('o o', bare)).toEqual([pieceId('▁'), 1000, pieceId('o')]);
  });

  test('decode(encode(text)) is the text', () => {
    const text = fc.oneof(wellFormed, fc.stringMatching(/^[helo wrd.é😀]{0,60}$/u));
    const plain = text.filter((each) => !each.includes('▁'));
    fc.assert(fc.property(plain, (each) => tokenizer.decode(tokenizer.encode(each)) === each));
  });
});

describe('decode agrees with the library', () => {
  const bytes = fc.constantFrom(0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xc3, 0xa9, 0x20, 0x41, 0xff);
  const cases = [
    { name: 'byte-level', json: byteLevelJson(), ids: fc.oneof(bytes, fc.nat(byteLevelBase + 2)) },
    {
      name: 'pieces',
      json: pieceJson(),
      ids: fc.oneof(bytes.map(byteId), fc.constantFrom(0, 1, 2), fc.integer({ min: 259, max: 278 })),
    },
    { name: 'gemma', json: gemmaLikeJson(), ids: fc.oneof(bytes.map(byteId), fc.integer({ min: 259, max: 278 })) },
  ];
  test.each(cases)('$name', ({ json, ids }) => {
    const ours = createTokenizer('tiny', json);
    const theirs = library(json);
    fc.assert(
      fc.property(fc.array(ids, { minLength: 1, maxLength: 30 }), fc.boolean(), (list, skip) => {
        const expected = theirs.decode(list, { skip_special_tokens: skip, clean_up_tokenization_spaces: false });
        expect(ours.decode(list, { skipSpecial: skip })).toBe(expected);
      }),
      { numRuns: 500 },
    );
  });

  test('except that a byte order mark stays', () => {
    expect(createTokenizer('tiny', pieceJson()).decode([0xef, 0xbb, 0xbf].map(byteId))).toBe('\ufeff');
  });
});

describe('pre-tokenizers', () => {
  const words = (preTokenizer: object, text: string): string[] => {
    // Every pre-token is one merge away from nothing: with all two-letter merges, borders show as single letters.
    const letters = Array.from(new Set(text));
    const pairs = letters.flatMap((a) => letters.map((b) => [a, b]));
    const vocab = Object.fromEntries([...letters, ...pairs.map((pair) => pair.join(''))].map((name, i) => [name, i]));
    const json = pieceJson({
      added_tokens: [],
      post_processor: null,
      normalizer: null,
      pre_tokenizer: preTokenizer,
      model: { type: 'BPE', vocab, merges: pairs },
    });
    const tokenizer = createTokenizer('tiny', json);
    return tokenizer.encode(text).map((id) => Object.keys(vocab).find((name) => vocab[name] === id) ?? '');
  };
  const split = (behavior: string, pattern: object, invert = false): object => ({
    type: 'Split',
    pattern,
    behavior,
    invert,
  });

  test('Split in all behaviors', () => {
    expect(words(split('Isolated', { String: '-' }), 'ab--cd')).toEqual(['ab', '-', '-', 'cd']);
    expect(words(split('Removed', { String: '-' }), 'ab--cd')).toEqual(['ab', 'cd']);
    expect(words(split('Removed', { Regex: '[a-z]+' }, true), 'ab--cd')).toEqual(['ab', 'cd']);
    expect(words(split('MergedWithPrevious', { String: '-' }), 'a--bc')).toEqual(['a-', '-', 'bc']);
    expect(words(split('MergedWithNext', { String: '-' }), 'ab--c')).toEqual(['ab', '-', '-c']);
    expect(words(split('Contiguous', { String: '-' }), 'ab--cd')).toEqual(['ab', '--', 'cd']);
    expect(words(split('Isolated', { String: '.' }), 'ab.cd')).toEqual(['ab', '.', 'cd']);
  });

  test('Digits of every script', () => {
    expect(words({ type: 'Digits', individual_digits: true }, 'ab12٣٤')).toEqual(['ab', '1', '2', '٣', '٤']);
    expect(words({ type: 'Digits', individual_digits: false }, 'ab12cd')).toEqual(['ab', '12', 'cd']);
  });

  test('ByteLevel with GPT-2 words', () => {
    const preTokenizer = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
    const tokenizer = createTokenizer('tiny', byteLevelJson({ pre_tokenizer: preTokenizer }));
    // ' world' is one word, '12345' too: 1 2 -> 12, 12 3 -> 123
    expect(tokenizer.encode("hello world12345's", bare)).toEqual([259, 264, 267, ...utf8("45's")]);
  });
});

describe('files', () => {
  let directory = '';
  beforeAll(() => {
    directory = mkdtempSync(join(tmpdir(), 'kloop-tokenizer-'));
  });
  afterAll(() => rmSync(directory, { recursive: true }));
  const write = (content: string): string => {
    const file = join(directory, 'tokenizer.json');
    writeFileSync(file, content);
    return file;
  };

  test('loads', () => {
    const tokenizer = loadTokenizer(write(JSON.stringify(byteLevelJson())));
    expect(tokenizer.decode(tokenizer.encode('hello'))).toBe('hello');
  });

  test('missing, too large, not JSON', () => {
    expect(() => loadTokenizer(join(directory, 'nowhere.json'))).toThrow(CheckpointError);
    expect(() => loadTokenizer(write('{"model": '))).toThrow(CheckpointError);
    expect(() => loadTokenizer(write('['.repeat(100_000)))).toThrow(CheckpointError);
    const file = write(JSON.stringify(byteLevelJson()));
    expect(() => loadTokenizer(file, {}, { fileBytes: 100 })).toThrow(/at most 100 are allowed/);
  });

  const model = byteLevelJson()['model'] as object;
  const broken: readonly (readonly [string, unknown, RegExp])[] = [
    ['null', null, /is not a tokenizer/],
    ['no model', byteLevelJson({ model: undefined }), /is not a tokenizer: model/],
    ['vocab is a list', byteLevelJson({ model: { ...model, vocab: ['a'] } }), /vocab/],
    ['negative id', byteLevelJson({ model: { ...model, vocab: { a: -1 } } }), /token id -1/],
    ['huge id', byteLevelJson({ model: { ...model, vocab: { a: 4e9 } } }), /token id 4000000000/],
    ['id as text', byteLevelJson({ model: { ...model, vocab: { a: '1' } } }), /token id "1"/],
    ['merges are numbers', byteLevelJson({ model: { ...model, merges: [1] } }), /merges/],
    ['merge of three', byteLevelJson({ model: { ...model, merges: ['a b c'] } }), /merges/],
    ['unk_token unknown', byteLevelJson({ model: { ...model, unk_token: '<no>' } }), /unk_token/],
    ['added token without id', byteLevelJson({ added_tokens: [{ content: 'x' }] }), /added_tokens/],
    ['added token is huge', byteLevelJson({ added_tokens: [{ id: 1, content: 'x'.repeat(5000) }] }), /added_tokens/],
    ['no decoder', byteLevelJson({ decoder: null }), /decoder/],
    [
      'Split without pattern',
      byteLevelJson({ pre_tokenizer: { type: 'Split', pattern: {}, behavior: 'Isolated' } }),
      /Split is malformed/,
    ],
    [
      'broken regex',
      byteLevelJson({
        pre_tokenizer: { type: 'Split', pattern: { Regex: '(((' }, behavior: 'Isolated', invert: false },
      }),
      /setting up the tokenizer failed/,
    ],
    [
      'text bomb',
      byteLevelJson({ normalizer: { type: 'Replace', pattern: { Regex: '.' }, content: 'x'.repeat(1000) } }),
      /Replace/,
    ],
    [
      'text bomb in steps',
      byteLevelJson({
        normalizer: {
          type: 'Sequence',
          normalizers: Array(9).fill({ type: 'Replace', pattern: { String: 'x' }, content: 'xx' }),
        },
      }),
      /512 times longer/,
    ],
    [
      'BOS is no token',
      byteLevelJson({
        post_processor: {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<bos>' } }, { Sequence: { id: 'A' } }],
        },
      }),
      /"<bos>", which is not in the vocabulary/,
    ],
    [
      'template without text',
      byteLevelJson({ post_processor: { type: 'TemplateProcessing', single: [] } }),
      /post-processor/,
    ],
  ];
  test.each(broken)('%s', (_name, json, message) => {
    expect(() => createTokenizer('bad.json', json)).toThrow(CheckpointError);
    expect(() => createTokenizer('bad.json', json)).toThrow(message);
  });

  const foreign: readonly (readonly [string, unknown])[] = [
    ['Unigram', byteLevelJson({ model: { type: 'Unigram', vocab: [['a', 0]], unk_id: 0 } })],
    ['WordPiece decoder', byteLevelJson({ decoder: { type: 'WordPiece' } })],
    ['BertNormalizer', byteLevelJson({ normalizer: { type: 'BertNormalizer' } })],
    ['CTC pre-tokenizer', byteLevelJson({ pre_tokenizer: { type: 'UnicodeScripts' } })],
    ['BertProcessing', byteLevelJson({ post_processor: { type: 'BertProcessing', sep: ['a', 1], cls: ['a', 1] } })],
    ['word suffix', byteLevelJson({ model: { ...model, end_of_word_suffix: '</w>' } })],
  ];
  test.each(foreign)('%s is refused by name', (_name, json) => {
    expect(() => createTokenizer('other.json', json)).toThrow(UnsupportedModelError);
  });

  test('tokenizer_config.json declares special tokens', () => {
    const tokenizer = createTokenizer('tiny', byteLevelJson(), {
      eos_token: { content: '<think>' },
      pad_token: 'hello',
      bos_token: null,
    });
    expect(tokenizer.isSpecial(byteLevelBase + 2)).toBe(true);
    expect(tokenizer.isSpecial(259)).toBe(true);
    expect(tokenizer.encode('xhellox', bare)).toEqual([0x78, 259, 0x78]);
  });
});

describe('hostile input', () => {
  test('a text beyond the limit', () => {
    const tokenizer = createTokenizer('tiny', byteLevelJson(), {}, { textLength: 10 });
    expect(() => tokenizer.encode('x'.repeat(11))).toThrow(UsageError);
  });

  test('a pattern that backtracks for ever', () => {
    const pattern = { Regex: '(x+x+)+y' };
    const json = byteLevelJson({ pre_tokenizer: { type: 'Split', pattern, behavior: 'Isolated', invert: false } });
    const tokenizer = createTokenizer('slow.json', json, {}, { encodeMs: 100 });
    expect(() => tokenizer.encode('x'.repeat(100))).toThrow(
      /slow.json: tokenizing 100 characters took longer than 0.1 s/,
    );
    expect(tokenizer.encode('y', bare)).toEqual([0x79]);
  });

  test.each([
    ['a', 'a'.repeat(100_000)],
    ['space', ' '.repeat(100_000) + 'x'],
    ['newline', '\n'.repeat(100_000)],
    ['emoji', '😀'.repeat(30_000)],
  ])('a long run of one character: %s', (_name, text) => {
    for (const json of [byteLevelJson(), pieceJson(), gemmaLikeJson()]) {
      const tokenizer = createTokenizer('tiny', json);
      expect(tokenizer.decode(tokenizer.encode(text)) === text).toBe(true);
    }
  });
});
