/** From a checked body to prompts in tokens and the options of every text. */
import type { Model } from '../runtime/model.js';
import type { LogprobOptions } from '../runtime/logprobs.js';
import { checkBiasedTokens, resolveSampling, type TokenBias } from '../runtime/sampling.js';
import type { GenerateOptions } from '../runtime/session.js';
import type { Grammar } from '../text/grammar.js';
import { messageOf } from '../util/errors.js';
import { answerRules, compileRules, type ToolUse } from './answer-rules.js';
import { badRequest } from './api-error.js';
import { chatMessages, templateTools, textsOf } from './chat-messages.js';
import type { ChatBody, CompletionBody, GenerationBody, WireTool } from './schemas.js';
import type { ServedModel } from './served-model.js';
import type { ServerLimits } from './settings.js';

export interface TextRequest {
  readonly served: ServedModel;
  readonly prompts: readonly (readonly number[])[];
  /** Texts per prompt. */
  readonly choices: number;
  /** Of the texts of a prompt, in order. */
  readonly options: readonly GenerateOptions[];
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Text of every prompt, where it is to be part of the answer. */
  readonly echo?: readonly string[];
  /** Tools that an answer may call. */
  readonly toolUse?: ToolUse;
  /** What every text follows; to be released when they are made. */
  readonly grammar?: Grammar;
}

/** As OpenAI has it, for texts that are no answers. */
const defaultCompletionTokens = 16;

/** Throws ApiError, and what the tokenizer and the checks of prompts throw. */
export function completionRequest(served: ServedModel, body: CompletionBody, limits: ServerLimits): TextRequest {
  const { model } = served;
  const prompts = promptsOf(body.prompt).map((prompt) => {
    if (typeof prompt !== 'string') return prompt;
    served.checkTexts([prompt]);
    return model.tokenizer.encode(prompt);
  });
  const request = textRequest(served, prompts, body, body.max_tokens ?? defaultCompletionTokens, limits);
  const echo = body.echo ?? false;
  if (echo && request.stream) throw badRequest('echo is not supported in a stream', 'echo', 'unsupported_parameter');
  const { logprobs } = body;
  return {
    ...request,
    ...(typeof logprobs === 'number' ? withLogprobs(request, { top: logprobs, prompt: echo }) : {}),
    ...(echo ? { echo: prompts.map((tokens) => model.tokenizer.decode(tokens)) } : {}),
  };
}

/** As above; also what the chat template throws. */
export async function chatRequest(served: ServedModel, body: ChatBody, limits: ServerLimits): Promise<TextRequest> {
  const { model } = served;
  served.checkTexts(textsOf(body.messages));
  const rules = answerRules(model, body);
  const prompt = await chatPrompt(model, body, { tools: rules.tools });
  const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? Infinity;
  const request = textRequest(served, [prompt], body, maxTokens, limits);
  const top = body.top_logprobs ?? undefined;
  if (top !== undefined && body.logprobs !== true)
    throw badRequest('top_logprobs needs logprobs: true', 'top_logprobs');
  const wanted = body.logprobs === true ? withLogprobs(request, { top: top ?? 0 }) : request;
  const grammar = await compileRules(model, rules);
  const textTokens = rules.toolUse?.marks ?? [];
  const common = { atStart: true, textTokens, ...(grammar === undefined ? {} : { grammar }) };
  return {
    ...request,
    options: wanted.options.map((options) => ({ ...options, ...common })),
    ...(rules.toolUse === undefined ? {} : { toolUse: rules.toolUse }),
    ...(grammar === undefined ? {} : { grammar }),
  };
}

function withLogprobs({ options }: TextRequest, logprobs: LogprobOptions): Pick<TextRequest, 'options'> {
  return { options: options.map((one) => ({ ...one, logprobs })) };
}

/** Tokens of a conversation, with the header of the answer where that is wanted. */
export function chatPrompt(
  model: Model,
  { messages, chat_template_kwargs: variables }: Pick<ChatBody, 'messages' | 'chat_template_kwargs'>,
  { tools = [], addGenerationPrompt = true }: { tools?: readonly WireTool[]; addGenerationPrompt?: boolean } = {},
): Promise<number[]> {
  const offered = tools.length === 0 ? {} : { tools: templateTools(tools) };
  return model.applyChatTemplate(chatMessages(messages), {
    addGenerationPrompt,
    ...offered,
    variables: variables ?? {},
  });
}

function promptsOf(prompt: CompletionBody['prompt']): readonly (string | readonly number[])[] {
  if (typeof prompt === 'string') return [prompt];
  const isOne = (list: typeof prompt): list is number[] => typeof list[0] === 'number';
  if (prompt.length === 0) throw badRequest('prompt: there is none', 'prompt');
  return isOne(prompt) ? [prompt] : prompt;
}

function textRequest(
  served: ServedModel,
  prompts: TextRequest['prompts'],
  body: GenerationBody,
  maxTokens: number,
  limits: ServerLimits,
): TextRequest {
  for (const prompt of prompts) served.model.checkPrompt(prompt);
  const choices = body.n ?? 1;
  const texts = prompts.length * choices;
  if (texts > limits.prompts) {
    throw badRequest(
      `${prompts.length} prompts with ${choices} texts each, at most ${limits.prompts} texts may be`,
      'n',
    );
  }
  return {
    served,
    prompts,
    choices,
    options: optionsOf(body, served.model, maxTokens, choices),
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
  };
}

/** What the request leaves open is as the checkpoint's authors suggest. */
function optionsOf(body: GenerationBody, model: Model, maxTokens: number, choices: number): GenerateOptions[] {
  const defaults = { temperature: 1, ...model.defaultSampling };
  const { seed, ...sampling } = resolveSampling({
    temperature: body.temperature ?? defaults.temperature,
    topP: body.top_p ?? defaults.topP ?? 1,
    topK: Math.max(0, body.top_k ?? defaults.topK ?? 0),
    minP: body.min_p ?? defaults.minP ?? 0,
    repetitionPenalty: body.repetition_penalty ?? defaults.repetitionPenalty ?? 1,
    presencePenalty: body.presence_penalty ?? 0,
    frequencyPenalty: body.frequency_penalty ?? 0,
    bias: biasOf(body, model),
    ...(typeof body.seed === 'number' ? { seed: wrapSeed(body.seed) } : {}),
  });
  const stop = typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []);
  const ignoreEos = body.ignore_eos ?? false;
  // The first text is the one that n = 1 gives; the others must differ from it.
  return Array.from({ length: choices }, (_, i) => ({
    ...sampling,
    seed: wrapSeed(seed + i),
    maxTokens,
    stop,
    ignoreEos,
  }));
}

function biasOf({ logit_bias }: GenerationBody, model: Model): TokenBias[] {
  const bias = Object.entries(logit_bias ?? {}).map(([token, value]) => [Number(token), value] as const);
  try {
    checkBiasedTokens(bias, model.config.vocab);
  } catch (error) {
    throw badRequest(messageOf(error), 'logit_bias');
  }
  return bias;
}

/** Clients also send negative numbers. */
function wrapSeed(seed: number): number {
  return seed < 0 ? seed + 2 ** 53 : seed % 2 ** 53;
}
