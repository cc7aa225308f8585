/**
 * Two tokenizers small enough to tokenize by hand, as the contents of tokenizer.json.
 * Byte-level BPE: token id = byte value, then the merges in order, then special tokens.
 * SentencePiece-style BPE: <unk> <s> </s>, the 256 bytes, single characters, then the merges in order.
 */

/** GPT-2's byte table, built as its authors describe it. */
export function byteLevelAlphabet(): string[] {
  const visible = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
}

export const byteLevelMerges = [
  'h e',
  'l l',
  'he ll',
  'hell o',
  'Ġ w',
  'Ġw o',
  'r l',
  'rl d',
  'Ġwo rld',
  'ð Ł',
  '1 2',
  '12 3',
];
export const byteLevelBase = 256 + byteLevelMerges.length;

interface Changes {
  readonly [section: string]: unknown;
}

/** In the manner of Llama 3: words by a regular expression, BOS by the post-processor. */
export function byteLevelJson(changes: Changes = {}): Record<string, unknown> {
  const names = [...byteLevelAlphabet(), ...byteLevelMerges.map((merge) => merge.replace(' ', ''))];
  const special = ['<|begin|>', '<|end|>'].map((content, i) => addedToken(byteLevelBase + i, content, true));
  return {
    version: '1.0',
    added_tokens: [
      ...special,
      addedToken(byteLevelBase + 2, '<think>', false),
      addedToken(byteLevelBase + 3, 'é|é', false),
    ],
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        {
          type: 'Split',
          pattern: {
            Regex: String.raw`(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`,
          },
          behavior: 'Isolated',
          invert: false,
        },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'Sequence',
      processors: [
        { type: 'ByteLevel', add_prefix_space: true, trim_offsets: false, use_regex: true },
        {
          type: 'TemplateProcessing',
          single: [{ SpecialToken: { id: '<|begin|>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
          pair: [],
          special_tokens: { '<|begin|>': { id: '<|begin|>', ids: [byteLevelBase], tokens: ['<|begin|>'] } },
        },
      ],
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: true,
      vocab: Object.fromEntries(names.map((name, id) => [name, id])),
      merges: byteLevelMerges,
    },
    ...changes,
  };
}

export const pieceChars = Array.from('▁helowrd.');
export const pieceMerges = ['h e', 'l l', 'he ll', 'hell o', '▁ hello', '▁ w', '▁w o', 'r l', 'rl d', '▁wo rld', '▁ ▁'];
/** The first id after the control tokens and the bytes. */
export const pieceBase = 259;

/** Id of a piece of the SentencePiece-style vocabulary. */
export function pieceId(piece: string): number {
  const names = [...pieceChars, ...pieceMerges.map((merge) => merge.replace(' ', ''))];
  if (!names.includes(piece)) throw new Error(`no piece ${piece}`);
  return pieceBase + names.indexOf(piece);
}

/** Id of the byte token <0xNN>. */
export function byteId(byte: number): number {
  return 3 + byte;
}

const replaceSpace = { type: 'Replace', pattern: { String: ' ' }, content: '▁' };
const pieceDecoders = [
  { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
  { type: 'ByteFallback' },
  { type: 'Fuse' },
];

/** In the manner of Llama 2: a space is put before the text, and removed again. */
export function pieceJson(changes: Changes = {}): Record<string, unknown> {
  const bytes = Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
  const names = [
    '<unk>',
    '<s>',
    '</s>',
    ...bytes,
    ...pieceChars,
    ...pieceMerges.map((merge) => merge.replace(' ', '')),
  ];
  return {
    added_tokens: ['<unk>', '<s>', '</s>'].map((content, id) => addedToken(id, content, true)),
    normalizer: { type: 'Sequence', normalizers: [{ type: 'Prepend', prepend: '▁' }, replaceSpace] },
    pre_tokenizer: null,
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [],
      special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
    },
    decoder: { type: 'Sequence', decoders: [...pieceDecoders, { type: 'Strip', content: ' ', start: 1, stop: 0 }] },
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(names.map((name, id) => [name, id])),
      merges: pieceMerges.map((merge) => merge.split(' ')),
    },
    ...changes,
  };
}

/** In the manner of Gemma: no artificial space. */
export function gemmaLikeJson(): Record<string, unknown> {
  return pieceJson({
    normalizer: replaceSpace,
    pre_tokenizer: { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false },
    decoder: { type: 'Sequence', decoders: pieceDecoders },
  });
}

/** In the manner of Mistral and newer Llama 2 conversions: the space is put by the pre-tokenizer, at the very start only. */
export function metaspaceJson(split: boolean): Record<string, unknown> {
  return pieceJson({
    normalizer: null,
    pre_tokenizer: { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split },
  });
}

function addedToken(id: number, content: string, special: boolean): object {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special };
}
