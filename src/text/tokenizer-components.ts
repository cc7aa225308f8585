/**
 * Checks the normalizer and the post-processor of tokenizer.json. Both are handed to the library as they are, so only
 * kinds are let through that it computes as the format's reference implementation does, and only in harmless sizes.
 */
import { z } from 'zod';
import { CheckpointError, UnsupportedModelError } from '../util/errors.js';
import { patternSchema } from './pre-tokenizers.js';

/** Any component of a tokenizer: an object with a type. */
export const componentSchema = z.looseObject({ type: z.string().max(64) });

const normalizers: readonly string[] = [
  'NFC',
  'NFD',
  'NFKC',
  'NFKD',
  'Lowercase',
  'Strip',
  'StripAccents',
  'Prepend',
  'Replace',
];

/** A text may not grow beyond measure: at most 16 normalizers, that together replace a character by at most 8. */
export function checkNormalizer(file: string, normalizer: z.infer<typeof componentSchema> | null): void {
  const sequence = z
    .object({ type: z.literal('Sequence'), normalizers: z.array(componentSchema).max(16) })
    .safeParse(normalizer);
  const list = sequence.success ? sequence.data.normalizers : normalizer === null ? [] : [normalizer];
  let growth = 1;
  for (const step of list) {
    if (!normalizers.includes(step.type)) {
      throw new UnsupportedModelError(`${file}: a normalizer of type ${JSON.stringify(step.type)} is not supported`);
    }
    const schema = step.type === 'Replace' ? replaceSchema : step.type === 'Prepend' ? prependSchema : componentSchema;
    const checked = schema.safeParse(step);
    if (!checked.success) throw new CheckpointError(file, `normalizer ${step.type} is malformed`);
    if ('content' in checked.data && typeof checked.data.content === 'string')
      growth *= Math.max(1, checked.data.content.length);
  }
  if (growth > 8) throw new CheckpointError(file, `the normalizer makes a text up to ${growth} times longer`);
}

const replaceSchema = z.object({ type: z.literal('Replace'), pattern: patternSchema, content: z.string().max(8) });
const prependSchema = z.object({ type: z.literal('Prepend'), prepend: z.string().max(8) });

const templateItem = z.union([
  z.object({ SpecialToken: z.object({ id: z.string() }) }),
  z.object({ Sequence: z.object({ id: z.literal('A') }) }),
]);
const templateSchema = z.looseObject({ type: z.literal('TemplateProcessing'), single: z.array(templateItem).max(64) });

export function checkPostProcessor(
  file: string,
  processor: z.infer<typeof componentSchema> | null,
  isKnown: (name: string) => boolean,
): void {
  const sequence = z
    .object({ type: z.literal('Sequence'), processors: z.array(componentSchema).max(16) })
    .safeParse(processor);
  const list = sequence.success ? sequence.data.processors : processor === null ? [] : [processor];
  for (const step of list) {
    if (step.type === 'ByteLevel') continue;
    if (step.type !== 'TemplateProcessing') {
      throw new UnsupportedModelError(
        `${file}: a post-processor of type ${JSON.stringify(step.type)} is not supported`,
      );
    }
    const template = templateSchema.safeParse(step);
    if (!template.success || template.data.single.filter((item) => 'Sequence' in item).length !== 1) {
      throw new CheckpointError(file, 'the post-processor is not a template around one sequence');
    }
    for (const item of template.data.single) {
      if ('SpecialToken' in item && !isKnown(item.SpecialToken.id)) {
        throw new CheckpointError(
          file,
          `the post-processor adds ${JSON.stringify(item.SpecialToken.id.slice(0, 64))}, which is not in the vocabulary`,
        );
      }
    }
  }
}
