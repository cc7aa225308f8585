import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StreamDecoder } from '../../src/text/stream-decoder.js';
import { loadTokenizer } from '../../src/text/tokenizer.js';

const file = fileURLToPath(new URL('../../demo/tokenizer.json', import.meta.url));

describe.runIf(existsSync(file))('the tokenizer of the demo model', () => {
  test('any text comes back, whole and streamed', () => {
    const tokenizer = loadTokenizer(file);
    const text = fc.oneof(fc.string({ unit: 'binary' }), fc.stringMatching(/^[A-Za-z ,.'"!?\n]{0,100}$/));
    fc.assert(
      fc.property(text, (each) => {
        const ids = tokenizer.encode(each);
        expect(tokenizer.decode(ids)).toBe(each);
        const stream = new StreamDecoder(tokenizer);
        expect(ids.map((id) => stream.push(id)).join('') + stream.flush()).toBe(each);
        for (const id of ids) expect(id).toBeLessThan(tokenizer.vocabSize);
      }),
    );
  });
});
