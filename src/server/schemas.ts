/**
 * Bodies of requests. `null` means absent, as the OpenAI API has it. A parameter that is unknown is refused, so that
 * nothing a client asks for is left out silently; what changes no text, such as `user`, is accepted and ignored.
 */
import { z } from 'zod';
import { numberWithin, samplingRanges } from '../checkpoint/sampling-ranges.js';
import { ApiError, badRequest, fromZod } from './api-error.js';
import type { ServerLimits } from './settings.js';

const tokenId = z.int().min(0);

/** Parameters that both ways of making text have. */
function generationShape(limits: ServerLimits) {
  const stop = z.string().min(1).max(1024);
  return {
    model: z.string().max(512),
    max_tokens: z.int().min(1).nullish(),
    n: z.int().min(1).max(limits.choices).nullish(),
    stop: z
      .union([stop, z.array(stop).max(limits.stops)], {
        error: `must be a text, or a list of at most ${limits.stops}, each of 1 to 1024 characters`,
      })
      .nullish(),
    seed: z.int().nullish(),
    temperature: numberWithin(samplingRanges.temperature).nullish(),
    top_p: numberWithin(samplingRanges.topP).nullish(),
    /** 0 and -1 are off. */
    top_k: z.int().min(-1).max(samplingRanges.topK.max).nullish(),
    min_p: numberWithin(samplingRanges.minP).nullish(),
    repetition_penalty: numberWithin(samplingRanges.repetitionPenalty).nullish(),
    presence_penalty: z.number().min(-2).max(2).nullish(),
    frequency_penalty: z.number().min(-2).max(2).nullish(),
    /** By token id, which JSON writes as a string. */
    logit_bias: z
      .record(z.string().regex(/^\d{1,9}$/, 'must be token ids'), z.number().min(-100).max(100))
      .refine((bias) => Object.keys(bias).length <= limits.biases, `at most ${limits.biases} tokens may be biased`)
      .nullish(),
    ignore_eos: z.boolean().nullish(),
    stream: z.boolean().nullish(),
    stream_options: z
      .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.literal(false).nullish() })
      .nullish(),
  };
}

export function completionSchema(limits: ServerLimits) {
  const tokens = z.array(tokenId);
  return z.strictObject({
    ...generationShape(limits),
    /** How many of the most likely tokens to tell at every place. */
    logprobs: z.int().min(0).max(limits.topLogprobs).nullish(),
    /** The prompt is part of the answer, with its logprobs where they are asked for. */
    echo: z.boolean().nullish(),
    prompt: z.union(
      [z.string(), tokens, z.array(z.string()).max(limits.prompts), z.array(tokens).max(limits.prompts)],
      {
        error: `must be a text, a list of tokens, or a list of at most ${limits.prompts} of either`,
      },
    ),
  });
}

/** A text, or parts of one. */
const content = z.union(
  [
    z.string(),
    z.array(z.strictObject({ type: z.literal('text', 'only parts of the type text are supported'), text: z.string() })),
  ],
  { error: 'must be a text, or a list of parts of the type text' },
);

const jsonObject = z.record(z.string(), z.unknown());

/** Variables of the chat template, such as `enable_thinking`. */
const templateVariables = jsonObject.nullish();

const toolName = z.string().regex(/^[\w-]{1,64}$/, 'must be 1 to 64 letters, digits, _ or -');

const toolCall = z.strictObject({
  id: z.string().min(1).max(128),
  type: z.literal('function'),
  function: z.strictObject({ name: toolName, arguments: z.string() }),
  index: z.int().optional(),
});

const message = z.discriminatedUnion('role', [
  z.strictObject({ role: z.enum(['system', 'developer', 'user']), content, name: z.string().nullish() }),
  z.strictObject({
    role: z.literal('assistant'),
    content: content.nullish(),
    name: z.string().nullish(),
    refusal: z.null().optional(),
    tool_calls: z.array(toolCall).max(128).nullish(),
    ...unusedFields(['audio', 'function_call', 'annotations', 'parsed']),
  }),
  z.strictObject({
    role: z.literal('tool'),
    content,
    tool_call_id: z.string().min(1).max(128),
    name: z.string().nullish(),
  }),
]);

/** Clients send answers back as they got them. */
function unusedFields(names: readonly string[]): Record<string, z.ZodType> {
  return Object.fromEntries(names.map((name) => [name, z.unknown().optional()]));
}

/** What the answer must be. */
const responseFormat = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('text') }),
  z.strictObject({ type: z.literal('json_object') }),
  z.strictObject({
    type: z.literal('json_schema'),
    json_schema: z.strictObject({
      name: z.string().max(256),
      description: z.string().nullish(),
      schema: jsonObject,
      /** Schemas are always obeyed. */
      strict: z.boolean().nullish(),
    }),
  }),
]);

const toolSchema = z.strictObject({
  type: z.literal('function', 'only tools of the type function are supported'),
  function: z.strictObject({
    name: toolName,
    description: z.string().nullish(),
    /** JSON schema of the arguments. */
    parameters: jsonObject.nullish(),
    strict: z.boolean().nullish(),
  }),
});

const toolChoice = z.union([
  z.enum(['none', 'auto', 'required']),
  z.strictObject({ type: z.literal('function'), function: z.strictObject({ name: z.string() }) }),
]);

/** Messages of a conversation. */
function messagesSchema(limits: ServerLimits) {
  return z.array(message).min(1).max(limits.messages);
}
export type WireMessage = z.infer<typeof message>;
export type WireTool = z.infer<typeof toolSchema>;

export function chatSchema(limits: ServerLimits) {
  const shape = generationShape(limits);
  return z.strictObject({
    ...shape,
    max_completion_tokens: shape.max_tokens,
    logprobs: z.boolean().nullish(),
    top_logprobs: z.int().min(0).max(limits.topLogprobs).nullish(),
    messages: messagesSchema(limits),
    chat_template_kwargs: templateVariables,
    response_format: responseFormat.nullish(),
    tools: z.array(toolSchema).max(limits.tools).nullish(),
    tool_choice: toolChoice.nullish(),
    parallel_tool_calls: z.boolean().nullish(),
  });
}

export function tokenizeSchema(limits: ServerLimits) {
  return z.strictObject({
    model: z.string().max(512).nullish(),
    /** Either a text ... */
    prompt: z.string().nullish(),
    add_special_tokens: z.boolean().nullish(),
    /** ... or a conversation. */
    messages: messagesSchema(limits).nullish(),
    add_generation_prompt: z.boolean().nullish(),
    chat_template_kwargs: templateVariables,
  });
}

export const detokenizeSchema = z.strictObject({ model: z.string().max(512).nullish(), tokens: z.array(tokenId) });

export type CompletionBody = z.infer<ReturnType<typeof completionSchema>>;
export type ChatBody = z.infer<ReturnType<typeof chatSchema>>;
/** What both have. */
export type GenerationBody = Pick<CompletionBody, keyof ReturnType<typeof generationShape>>;

/** They concern accounts, billing and caches of a hosted service. */
const ignored = new Set(
  'user metadata store service_tier safety_identifier prompt_cache_key prompt_cache_retention'.split(' '),
);

/**
 * Parameters that exist elsewhere and not here, with a test for the values that ask for nothing. They are refused by
 * name, since to leave them out would give another text than the one asked for.
 */
const unsupported: Readonly<Record<string, (value: unknown) => boolean>> = {
  suffix: (value) => value === '',
  best_of: (value) => value === 1,
  functions: isEmpty,
  function_call: (value) => value === 'none' || value === 'auto',
  modalities: (value) => Array.isArray(value) && value.every((kind) => kind === 'text'),
  reasoning_effort: () => false,
  verbosity: () => false,
  prediction: () => false,
  audio: () => false,
  web_search_options: () => false,
};

/** Checks a body that was JSON. Throws ApiError 400, which names the parameter. */
export function parseBody<T>(schema: z.ZodType<T>, body: unknown): T {
  if (!isObject(body)) throw badRequest('the body must be a JSON object');
  const known = Object.entries(body).filter(([name, value]) => !ignored.has(name) && !asksForNothing(name, value));
  const result = schema.safeParse(Object.fromEntries(known));
  if (!result.success) throw fromZod(result.error);
  return result.data;
}

/** Throws for a parameter that asks for something we do not have. */
function asksForNothing(name: string, value: unknown): boolean {
  if (!Object.hasOwn(unsupported, name)) return false;
  if (value === null || unsupported[name]!(value)) return true;
  throw new ApiError(`${name} is not supported by this server`, {
    status: 400,
    code: 'unsupported_parameter',
    param: name,
  });
}

function isEmpty(value: unknown): boolean {
  return typeof value === 'object' && value !== null && Object.keys(value).length === 0;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
