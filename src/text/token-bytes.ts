/**
 * From a token's name in the vocabulary to the bytes it contributes to the text. The `decoder` section of tokenizer.json
 * is a list of rewriting steps; for the two families of language-model tokenizers it comes down to one rule per token
 * plus the removal of a leading space, and then decoding is: concatenate bytes, decode UTF-8, drop that space.
 *
 *   byte-level BPE   every character of the name stands for one byte (GPT-2's table): 'Ġhi' -> ' hi'
 *   SentencePiece    '▁' is a space, '<0xNN>' is a byte, all else is text
 */
import { z } from 'zod';
import { CheckpointError, UnsupportedModelError } from '../util/errors.js';

/** How token names become bytes, and how many leading spaces of the text are artificial. */
export type TokenRule =
  | { readonly kind: 'byteLevel'; readonly leadingSpaces: 0 }
  | {
      readonly kind: 'text';
      /** Replacements [from, to] in the order of the file. */
      readonly replacements: readonly (readonly [string, string])[];
      readonly byteFallback: boolean;
      readonly leadingSpaces: number;
    };

const stepSchema = z.discriminatedUnion('type', [
  z.object({ type: z.literal('ByteLevel') }),
  z.object({
    type: z.literal('Metaspace'),
    replacement: z.string().length(1).default('▁'),
    prepend_scheme: z.enum(['always', 'first', 'never']).optional(),
    add_prefix_space: z.boolean().optional(),
  }),
  z.object({
    type: z.literal('Replace'),
    pattern: z.object({ String: z.string().min(1) }),
    content: z.string().max(16),
  }),
  z.object({ type: z.literal('ByteFallback') }),
  z.object({ type: z.literal('Fuse') }),
  z.object({
    type: z.literal('Strip'),
    content: z.literal(' '),
    start: z.number().int().min(0).max(16),
    stop: z.literal(0),
  }),
]);
const sequenceSchema = z.object({
  type: z.literal('Sequence'),
  decoders: z.array(z.looseObject({ type: z.string() })).max(16),
});
const supported: readonly string[] = ['ByteLevel', 'Metaspace', 'Replace', 'ByteFallback', 'Fuse', 'Strip'];

/**
 * Reads the `decoder` section of tokenizer.json. Throws CheckpointError where it is malformed and UnsupportedModelError
 * where it is of a family that language models of ours do not use.
 */
export function readDecoder(file: string, decoder: unknown): TokenRule {
  const sequence = sequenceSchema.safeParse(decoder);
  const steps: readonly unknown[] = sequence.success ? sequence.data.decoders : [decoder];
  let replacements: [string, string][] = [];
  let byteFallback = false;
  let fused = false;
  let leadingSpaces = 0;
  for (const raw of steps) {
    const step = parseStep(file, raw);
    switch (step.type) {
      case 'ByteLevel':
        if (steps.length > 1) throw unsupported(file, 'a ByteLevel decoder among others');
        return { kind: 'byteLevel', leadingSpaces: 0 };
      case 'Metaspace': {
        if (steps.length > 1) throw unsupported(file, 'a Metaspace decoder among others');
        const prepended = step.prepend_scheme !== 'never' && step.add_prefix_space !== false;
        replacements = [[step.replacement, ' ']];
        leadingSpaces = prepended ? 1 : 0;
        break;
      }
      case 'Replace':
        if (byteFallback || fused) throw unsupported(file, 'a Replace decoder after ByteFallback or Fuse');
        replacements.push([step.pattern.String, step.content]);
        break;
      case 'ByteFallback':
        if (fused) throw unsupported(file, 'a ByteFallback decoder after Fuse');
        byteFallback = true;
        break;
      case 'Fuse':
        fused = true;
        break;
      case 'Strip':
        if (!fused) throw unsupported(file, 'a Strip decoder that applies to each token');
        leadingSpaces = step.start;
        break;
      default:
        step satisfies never;
    }
  }
  return { kind: 'text', replacements, byteFallback, leadingSpaces };
}

function parseStep(file: string, raw: unknown): z.infer<typeof stepSchema> {
  const step = stepSchema.safeParse(raw);
  if (step.success) return step.data;
  const type = z.looseObject({ type: z.string().max(64) }).safeParse(raw);
  if (!type.success)
    throw new CheckpointError(file, 'no usable "decoder" section', {
      hint: 'use the tokenizer.json that belongs to the model',
    });
  if (!supported.includes(type.data.type))
    throw unsupported(file, `a decoder of type ${JSON.stringify(type.data.type)}`);
  const issue = step.error.issues[0];
  throw new CheckpointError(
    file,
    `decoder ${type.data.type}: ${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is malformed'}`,
  );
}

function unsupported(file: string, what: string): UnsupportedModelError {
  return new UnsupportedModelError(`${file}: ${what} is not supported`, {
    hint: 'use a byte-level BPE or SentencePiece-style BPE tokenizer',
  });
}

const utf8 = new TextEncoder();

/** The bytes that the token `name` contributes to the text. `added` tokens of a byte-level vocabulary are plain text. */
export function bytesOfName(name: string, rule: TokenRule, added: boolean): Uint8Array {
  switch (rule.kind) {
    case 'byteLevel':
      return (added ? undefined : byteLevelBytes(name)) ?? utf8.encode(name);
    case 'text': {
      let text = name;
      for (const [from, to] of rule.replacements) text = text.replaceAll(from, to);
      const hex = rule.byteFallback ? /^<0x([0-9A-Fa-f]{2})>$/.exec(text)?.[1] : undefined;
      return hex === undefined ? utf8.encode(text) : Uint8Array.of(Number.parseInt(hex, 16));
    }
    default:
      rule satisfies never;
      return new Uint8Array();
  }
}

/** The bytes of a byte-level name; undefined where a character is not in the table, as the name then is plain text. */
function byteLevelBytes(name: string): Uint8Array | undefined {
  const bytes = new Uint8Array(name.length);
  for (let i = 0; i < name.length; i++) {
    const byte = byteOfUnit(name.charCodeAt(i));
    if (byte === undefined) return undefined;
    bytes[i] = byte;
  }
  return bytes;
}

/**
 * GPT-2's table: printable Latin-1 characters stand for themselves; the 68 other bytes, in ascending order, have the
 * characters from U+0100 on: 0..32 -> U+0100..U+0120, 127..160 -> U+0121..U+0142, 173 -> U+0143.
 */
function byteOfUnit(unit: number): number | undefined {
  if ((unit >= 0x21 && unit <= 0x7e) || (unit >= 0xa1 && unit <= 0xac) || (unit >= 0xae && unit <= 0xff)) return unit;
  if (unit >= 0x100 && unit <= 0x120) return unit - 0x100;
  if (unit >= 0x121 && unit <= 0x142) return unit - 0x121 + 127;
  return unit === 0x143 ? 173 : undefined;
}

/** The other way round: bytes as a name of a byte-level vocabulary. */
export function byteLevelName(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => unitOfByte[byte]).join('');
}

const unitOfByte: readonly string[] = [...Array(0x144).keys()].reduce<string[]>((table, unit) => {
  const byte = byteOfUnit(unit);
  if (byte !== undefined) table[byte] = String.fromCharCode(unit);
  return table;
}, []);
