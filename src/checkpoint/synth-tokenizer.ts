/**
 * A byte-level BPE tokenizer of any size for synthetic checkpoints. Every byte is a token and there are no merges, so
 * any text can be encoded; the rest of the vocabulary is made of syllables, so that what a random model says can at
 * least be read aloud. The last two ids are BOS and EOS.
 */
import { UsageError } from '../util/errors.js';

export interface SynthTokenizer {
  readonly tokenizer: Record<string, unknown>;
  readonly tokenizerConfig: Record<string, unknown>;
  readonly bos: number;
  readonly eos: number;
}

const bosToken = '<s>';
const eosToken = '</s>';

/** `vocab` counts BOS and EOS. Below 258 not every byte has a token; printable ASCII comes first. */
export function synthTokenizer(vocab: number, context: number): SynthTokenizer {
  if (vocab < 3) throw new UsageError(`a vocabulary of ${vocab} has no room for text beside BOS and EOS`);
  const bos = vocab - 2;
  const eos = vocab - 1;
  const symbols = byteSymbols();
  const tokens = Array.from({ length: bos }, (_, id) => symbols[id] ?? syllables(id - symbols.length));
  const special = (id: number, content: string) => ({
    id,
    content,
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  return {
    bos,
    eos,
    tokenizer: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: [special(bos, bosToken), special(eos, eosToken)],
      normalizer: null,
      pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      post_processor: {
        type: 'TemplateProcessing',
        single: [{ SpecialToken: { id: bosToken, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
        pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
        special_tokens: { [bosToken]: { id: bosToken, ids: [bos], tokens: [bosToken] } },
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
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: [],
      },
    },
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: bosToken,
      eos_token: eosToken,
      clean_up_tokenization_spaces: false,
      model_max_length: context,
      chat_template:
        "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}" +
        '{% if add_generation_prompt %}assistant:{% endif %}',
    },
  };
}

/**
 * The characters that stand for bytes in byte-level BPE: printable bytes stand for themselves, the n-th other byte for
 * the character 256 + n. Printable ASCII, space and line feed get the first ids.
 */
function byteSymbols(): string[] {
  let others = 0;
  const symbols = Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
    return String.fromCharCode(printable ? byte : 256 + others++);
  });
  const first = [...Array.from({ length: 95 }, (_, i) => 32 + i), 10];
  const order = [...first, ...symbols.keys()].filter((byte, i, all) => all.indexOf(byte) === i);
  return order.map((byte) => symbols[byte]!);
}

const consonants = 'bcdfghjklmnprstvwxyz';
const vowels = 'aeiou';

/** A word for a number: its digits to base 100 as syllables, after the symbol for a space. */
function syllables(index: number): string {
  let word = '';
  let rest = index;
  do {
    const digit = rest % 100;
    word = consonants[Math.floor(digit / 5)]! + vowels[digit % 5]! + word;
    rest = Math.floor(rest / 100);
  } while (rest > 0);
  return `\u0120${word}`;
}
