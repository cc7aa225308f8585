/**
 * What a checkpoint says about generating text: the ids that end it, and the sampling its authors suggest. Ids come
 * from config.json and generation_config.json together, since either may name some that the other lacks.
 */
import { z } from 'zod';
import { show } from '../util/checked.js';
import { CheckpointError } from '../util/errors.js';
import { numberWithin, samplingRanges } from './sampling-ranges.js';

export interface GenerationDefaults {
  /** Every id that ends a text, without repeats. */
  readonly eos: readonly number[];
  readonly bos?: number;
  /** 0 is greedy, and what a config with `do_sample: false` says. */
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly repetitionPenalty?: number;
}

/** A source of settings: parsed JSON, and the file it is from. Undefined JSON is a file that is not there. */
interface Source {
  readonly json: unknown;
  readonly file: string;
}

const ids = z.looseObject({
  // Some configs have -1 for "none".
  eos_token_id: z.union([z.number().int(), z.array(z.number().int()).max(1000)]).nullish(),
  bos_token_id: z.union([z.number().int(), z.array(z.number().int()).max(1000)]).nullish(),
});
const sampling = z.looseObject({
  do_sample: z.boolean().nullish(),
  temperature: numberWithin(samplingRanges.temperature).nullish(),
  top_k: numberWithin(samplingRanges.topK).nullish(),
  top_p: numberWithin(samplingRanges.topP).nullish(),
  min_p: numberWithin(samplingRanges.minP).nullish(),
  repetition_penalty: numberWithin(samplingRanges.repetitionPenalty).nullish(),
});

/** Merges the two files; ids must be below `vocab`. Throws CheckpointError naming file and field. */
export function readGeneration(config: Source, generation: Source, vocab: number): GenerationDefaults {
  const own = check(ids, generation);
  const base = check(ids, config);
  const eos = new Set<number>();
  for (const [file, { eos_token_id: value }] of [[generation.file, own] as const, [config.file, base] as const]) {
    for (const token of idList(value)) {
      if (token >= vocab) throw new CheckpointError(file, `eos_token_id ${token} is not below vocab_size ${vocab}`);
      eos.add(token);
    }
  }
  const bos = [...idList(own.bos_token_id), ...idList(base.bos_token_id)][0];
  const settings = check(sampling, generation);
  return {
    eos: [...eos],
    // A few models name a BOS outside of their vocabulary, and never use it.
    ...(bos !== undefined && bos < vocab ? { bos } : {}),
    ...samplingOf(settings),
  };
}

function samplingOf(settings: z.infer<typeof sampling>): Omit<GenerationDefaults, 'eos' | 'bos'> {
  const penalty = settings.repetition_penalty ?? undefined;
  const repetition = penalty === undefined ? {} : { repetitionPenalty: penalty };
  if (settings.do_sample === false) return { temperature: 0, ...repetition };
  const optional = <K extends string>(key: K, value: number | null | undefined) =>
    (value == null ? {} : { [key]: value }) as Partial<Record<K, number>>;
  return {
    ...optional('temperature', settings.temperature),
    ...optional('topK', settings.top_k),
    ...optional('topP', settings.top_p),
    ...optional('minP', settings.min_p),
    ...repetition,
  };
}

function idList(value: number | number[] | null | undefined): number[] {
  const list = Array.isArray(value) ? value : value == null ? [] : [value];
  return list.filter((token) => token >= 0);
}

function check<T extends z.ZodType>(schema: T, { json, file }: Source): z.infer<T> {
  const result = schema.safeParse(json === undefined ? {} : json, { reportInput: true });
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue?.path.map(String).join('.') ?? '';
  const found = field === '' ? 'the content' : `${field} ${show(issue?.input)}`;
  throw new CheckpointError(file, `${found} is not valid (${issue?.message ?? ''})`);
}
