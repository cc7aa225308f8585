/**
 * Rewrites the pre-tokenizers of tokenizer.json into those that the library computes as the reference implementation
 * does. Everything comes down to `Split` with behavior Isolated, where the regular expression lists the pieces:
 *
 *   Split(P, MergedWithPrevious)  -->  pieces  .*? P  |  rest            Digits     -->  Split(\p{N})
 *   Split(P, MergedWithNext)      -->  pieces  P? (anything but P)*      Metaspace  -->  Metaspace, Split(▁, MergedWithNext)
 *   Split(P, Removed)             -->  matches (anything but P)+
 *   Split(P, Contiguous)          -->  pieces  P+                        ByteLevel  -->  Split(GPT-2's words), ByteLevel
 *
 * The library itself treats the merging behaviors as Isolated, never splits at Metaspace, and uses JavaScript's idea of
 * digits and white space.
 */
import { z } from 'zod';
import { CheckpointError, UnsupportedModelError } from '../util/errors.js';

/** What a Split or a Replace looks for. */
export const patternSchema = z.union([
  z.object({ String: z.string().min(1) }),
  z.object({ Regex: z.string().min(1).max(16_384) }),
]);
const schemas = {
  Sequence: z.object({ pretokenizers: z.array(z.looseObject({ type: z.string().max(64) })).max(16) }),
  Split: z.object({ pattern: patternSchema, behavior: z.string().max(64), invert: z.boolean().default(false) }),
  Digits: z.object({ individual_digits: z.boolean().default(false) }),
  Metaspace: z.object({
    replacement: z.string().length(1).default('▁'),
    prepend_scheme: z.enum(['always', 'first', 'never']).default('always'),
    add_prefix_space: z.boolean().default(true),
    split: z.boolean().default(true),
  }),
  ByteLevel: z.object({ add_prefix_space: z.boolean().default(true), use_regex: z.boolean().default(true) }),
};

/** GPT-2's words: contractions, letters, numbers, other signs, each with the space before it, and runs of space. */
const gpt2Words = String.raw`'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`;

/** The equivalent pre-tokenizer for the library. Throws CheckpointError or UnsupportedModelError. */
export function rewritePreTokenizer(file: string, config: { readonly type: string } | null, depth = 0): object | null {
  if (config === null) return null;
  if (depth > 4) throw new CheckpointError(file, 'pre-tokenizers are nested too deeply');
  const read = <T>(schema: z.ZodType<T>): T => {
    const parsed = schema.safeParse(config);
    if (parsed.success) return parsed.data;
    throw new CheckpointError(
      file,
      `pre-tokenizer ${config.type} is malformed: ${parsed.error.issues[0]?.message ?? ''}`,
    );
  };
  switch (config.type) {
    case 'Sequence':
      return sequence(read(schemas.Sequence).pretokenizers.map((step) => rewritePreTokenizer(file, step, depth + 1)));
    case 'Split':
      return rewriteSplit(file, read(schemas.Split));
    case 'Digits':
      return isolated(read(schemas.Digits).individual_digits ? String.raw`\p{N}` : String.raw`\p{N}+`);
    case 'Metaspace': {
      const { replacement, prepend_scheme, add_prefix_space, split } = read(schemas.Metaspace);
      const metaspace = { type: 'Metaspace', replacement, prepend_scheme: add_prefix_space ? prepend_scheme : 'never' };
      return split ? sequence([metaspace, isolated(mergedWithNext(escapeRegex(replacement)))]) : metaspace;
    }
    case 'ByteLevel': {
      const { add_prefix_space, use_regex } = read(schemas.ByteLevel);
      // With a prefix space the words depend on the space, which only the library's own step adds.
      if (add_prefix_space || !use_regex) return { type: 'ByteLevel', add_prefix_space, use_regex };
      return sequence([isolated(gpt2Words), { type: 'ByteLevel', add_prefix_space, use_regex: false }]);
    }
    default:
      throw new UnsupportedModelError(
        `${file}: a pre-tokenizer of type ${JSON.stringify(config.type)} is not supported`,
      );
  }
}

/**
 * The same pre-tokenizer, followed by a split before each run of '▁', where that cannot change the result: BPE never
 * merges over a place that no merge spans. SentencePiece-style files take the whole text as one word, which costs
 * n log n and knows no word twice; split into words it is an order of magnitude faster.
 */
export function splitAtSpaces(preTokenizer: object | null, merges: readonly (string | readonly string[])[]): object {
  const spans = merges.some((merge) =>
    /[^▁]▁/.test(typeof merge === 'string' ? merge.replace(' ', '') : merge.join('')),
  );
  return sequence(spans ? [preTokenizer] : [preTokenizer, isolated('▁*[^▁]+|▁+')]);
}

function rewriteSplit(file: string, { pattern, behavior, invert }: z.infer<(typeof schemas)['Split']>): object {
  const regex = 'Regex' in pattern ? pattern.Regex : escapeRegex(pattern.String);
  if (behavior === 'Isolated') return isolated(regex);
  if (behavior === 'Removed') return matches(invert ? regex : String.raw`(?:(?!${regex})[\s\S])+`);
  if (invert) {
    throw new UnsupportedModelError(`${file}: an inverted Split with ${JSON.stringify(behavior)} is not supported`);
  }
  switch (behavior) {
    case 'MergedWithPrevious':
      return isolated(String.raw`[\s\S]*?(?:${regex})|[\s\S]+`);
    case 'MergedWithNext':
      return isolated(mergedWithNext(regex));
    case 'Contiguous':
      return isolated(`(?:${regex})+`);
    default:
      throw new CheckpointError(file, `pre-tokenizer Split has the unknown behavior ${JSON.stringify(behavior)}`);
  }
}

function mergedWithNext(regex: string): string {
  return String.raw`(?:${regex})(?:(?!${regex})[\s\S])*|(?:(?!${regex})[\s\S])+`;
}

function isolated(regex: string): object {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Isolated', invert: false };
}

/** The matches only; the library does so whenever `invert` is set. */
function matches(regex: string): object {
  return { type: 'Split', pattern: { Regex: regex }, behavior: 'Removed', invert: true };
}

function sequence(pretokenizers: readonly (object | null)[]): object {
  return { type: 'Sequence', pretokenizers };
}

function escapeRegex(text: string): string {
  return text.replaceAll(/[\\^$.*+?()[\]{}|]/g, String.raw`\$&`);
}
