import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  byteId,
  byteLevelBase,
  byteLevelJson,
  gemmaLikeJson,
  metaspaceJson,
  pieceId,
  pieceJson,
} from '../../tests/text/tiny-tokenizers.js';
import { StreamDecoder } from './stream-decoder.js';
import { createTokenizer, type Tokenizer } from './tokenizer.js';

function stream(tokenizer: Tokenizer, ids: readonly number[], options = {}): string[] {
  const decoder = new StreamDecoder(tokenizer, options);
  return [...ids.map((id) => decoder.push(id)), decoder.flush()];
}

const utf8 = (text: string): number[] => [...new TextEncoder().encode(text)];
const byteLevel = createTokenizer('tiny', byteLevelJson());
const pieces = createTokenizer('tiny', pieceJson());

describe('by hand', () => {
  test('an emoji over several tokens appears with its last byte', () => {
    // ðŁ is one token of two bytes
    expect(stream(byteLevel, [265, 0x98, 0x80, 0x21])).toEqual(['', '', '😀', '!', '']);
    expect(stream(pieces, utf8('😀').map(byteId))).toEqual(['', '', '', '😀', '']);
  });

  test('combining marks and joined emoji come as their characters come', () => {
    expect(stream(byteLevel, utf8('e\u0301'))).toEqual(['e', '', '\u0301', '']);
    expect(stream(byteLevel, utf8('👩\u200d👧')).join('|')).toBe('|||👩|||\u200d||||👧|');
  });

  test('invalid bytes become U+FFFD', () => {
    expect(stream(byteLevel, [0xe2, 0x82, 0x41])).toEqual(['', '', '\ufffdA', '']);
    expect(stream(byteLevel, [0xff, 0x80])).toEqual(['\ufffd', '\ufffd', '']);
    expect(stream(byteLevel, [0xf0, 0x9f])).toEqual(['', '', '\ufffd']);
    // A surrogate in UTF-8 is not UTF-8: three bytes, three errors.
    expect(stream(byteLevel, [0xed, 0xa0, 0x80]).join('')).toBe('\ufffd\ufffd\ufffd');
  });

  test('an added token ends an unfinished sequence; a skipped one does not', () => {
    expect(stream(byteLevel, [0xe2, byteLevelBase + 2])).toEqual(['', '\ufffd<think>', '']);
    expect(stream(byteLevel, [0xe2, byteLevelBase, 0x82, 0xac])).toEqual(['', '', '', '€', '']);
    expect(stream(byteLevel, [byteLevelBase, 0x41], { skipSpecial: false })).toEqual(['<|begin|>', 'A', '']);
  });

  test('the artificial space of SentencePiece', () => {
    const ids = [1, pieceId('▁hello'), pieceId('▁world')];
    expect(stream(pieces, ids)).toEqual(['', 'hello', ' world', '']);
    expect(stream(pieces, ids, { atStart: false })).toEqual(['', ' hello', ' world', '']);
    expect(stream(pieces, [pieceId('▁'), pieceId('▁hello')])).toEqual(['', ' hello', '']);
    expect(stream(pieces, [byteId(0x20), pieceId('▁')])).toEqual(['', ' ', '']);
  });

  test('a byte order mark is text', () => {
    expect(stream(byteLevel, utf8('\ufeffa')).join('')).toBe('\ufeffa');
  });
});

describe('the pieces together are the final decoding', () => {
  const bytes = fc.constantFrom(
    0xe2,
    0x82,
    0xac,
    0xf0,
    0x9f,
    0x98,
    0x80,
    0xc3,
    0xa9,
    0xef,
    0xbb,
    0xbf,
    0xed,
    0xa0,
    0x20,
    0x41,
    0xff,
  );
  const tokenizers = [
    { name: 'byte-level', tokenizer: byteLevel, ids: fc.oneof(bytes, fc.nat(byteLevelBase + 10)) },
    { name: 'pieces', tokenizer: pieces, ids: fc.oneof(bytes.map(byteId), fc.nat(290)) },
    {
      name: 'gemma',
      tokenizer: createTokenizer('tiny', gemmaLikeJson()),
      ids: fc.oneof(bytes.map(byteId), fc.nat(290)),
    },
    {
      name: 'metaspace',
      tokenizer: createTokenizer('tiny', metaspaceJson(true)),
      ids: fc.oneof(bytes.map(byteId), fc.nat(290)),
    },
    {
      name: 'metaspace decoder',
      tokenizer: createTokenizer(
        'tiny',
        pieceJson({ decoder: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' } }),
      ),
      ids: fc.nat(290),
    },
  ];
  test.each(tokenizers)('$name', ({ tokenizer, ids }) => {
    fc.assert(
      fc.property(fc.array(ids, { maxLength: 40 }), fc.boolean(), (list, skipSpecial) => {
        const parts = stream(tokenizer, list, { skipSpecial });
        expect(parts.join('')).toBe(tokenizer.decode(list, { skipSpecial }));
        for (const part of parts) expect(part).not.toMatch(/\p{Surrogate}/u);
      }),
      { numRuns: 1000 },
    );
  });
});
