/** What a conversation asks of the form of its answer: JSON, calls of tools, or both left open. */
import type { Model } from '../runtime/model.js';
import type { Grammar } from '../text/grammar.js';
import type { GrammarSource } from '../text/grammar-thread.js';
import { followableSchema } from '../text/json-schema.js';
import type { Tool, ToolFormat } from '../text/tool-formats.js';
import { messageOf, UsageError } from '../util/errors.js';
import { ApiError, badRequest } from './api-error.js';
import { emptyParameters } from './chat-messages.js';
import type { ChatBody, WireTool } from './schemas.js';

/** Tools that an answer may call. */
export interface ToolUse {
  readonly format: ToolFormat;
  readonly names: ReadonlySet<string>;
  /** The special tokens that calls are marked with. */
  readonly marks: readonly number[];
}

export interface AnswerRules {
  /** Tools that the template tells the model of. */
  readonly tools: readonly WireTool[];
  readonly toolUse?: ToolUse;
  /** What the text must be, with the parameter that asks for it. */
  readonly source?: { readonly grammar: GrammarSource; readonly param: string };
}

/** Throws ApiError for a request that contradicts itself, or wants tools where the template knows none. */
export function answerRules(model: Model, body: ChatBody): AnswerRules {
  const { tools, choice, several } = toolsOf(body);
  const tellsOfTools = body.messages.some(
    ({ role, ...rest }) => role === 'tool' || ('tool_calls' in rest && rest.tool_calls),
  );
  if (tellsOfTools && model.toolFormat === undefined) throw knowsNoTools('messages');
  const toolUse = tools.length === 0 ? undefined : toolUseOf(model, tools);
  const wanted = body.response_format?.type ?? 'text';
  if (wanted !== 'text' && tools.length > 0) {
    throw badRequest('response_format does not go with tools that may be called', 'response_format');
  }
  const source = toolUse === undefined ? jsonSource(body) : callSource(toolUse, choice, several);
  if (body.ignore_eos === true && source !== undefined) {
    throw badRequest('ignore_eos does not go with an answer of a given form', 'ignore_eos');
  }
  return { tools, ...(toolUse === undefined ? {} : { toolUse }), ...(source === undefined ? {} : { source }) };
}

/** Throws ApiError for a grammar that cannot be followed, OverloadedError where too many are in use. */
export async function compileRules(model: Model, { source }: AnswerRules): Promise<Grammar | undefined> {
  if (source === undefined) return undefined;
  try {
    return await model.compileGrammar(source.grammar);
  } catch (error) {
    if (error instanceof UsageError) throw badRequest(error.message, source.param, 'invalid_schema');
    throw error;
  }
}

interface Wanted {
  /** Tools that the template tells the model of. */
  readonly tools: readonly WireTool[];
  readonly choice: CallChoice;
  readonly several: boolean;
}

/** Tools that may be called, or of which one must be. */
interface CallChoice {
  readonly among: readonly WireTool[];
  readonly optional: boolean;
}

function toolsOf({ tools: given, tool_choice: choice, parallel_tool_calls: parallel }: ChatBody): Wanted {
  const all = given ?? [];
  const several = parallel ?? true;
  const names = new Set(all.map((tool) => tool.function.name));
  if (names.size < all.length) throw badRequest('tools: two have the same name', 'tools');
  if (choice === 'none') return { tools: [], choice: { among: [], optional: true }, several };
  if (choice === 'auto' || choice === null || choice === undefined) {
    return { tools: all, choice: { among: all, optional: true }, several };
  }
  if (choice === 'required') {
    if (all.length === 0) throw badRequest('tool_choice: there are no tools to call', 'tool_choice');
    return { tools: all, choice: { among: all, optional: false }, several };
  }
  const named = all.filter((tool) => tool.function.name === choice.function.name);
  if (named.length === 0) {
    throw badRequest(
      `tool_choice: there is no tool ${JSON.stringify(choice.function.name.slice(0, 100))}`,
      'tool_choice',
    );
  }
  return { tools: all, choice: { among: named, optional: false }, several: false };
}

function toolUseOf(model: Model, tools: readonly WireTool[]): ToolUse {
  const format = model.toolFormat;
  if (format === undefined) throw knowsNoTools('tools');
  const names = new Set(tools.map((tool) => tool.function.name));
  return { format, names, marks: marksOf(model, format) };
}

function marksOf({ tokenizer }: Model, { marks, end = '' }: ToolFormat): number[] {
  return [...marks, end, '[ARGS]'].flatMap((mark) => (mark === '' ? [] : (tokenizer.tokenId(mark) ?? [])));
}

function knowsNoTools(param: string): ApiError {
  return new ApiError('the chat template of this model knows no tools, or calls them in a way that is not known here', {
    ...{ status: 400, code: 'unsupported_parameter', param },
  });
}

function jsonSource({ response_format: format }: ChatBody): AnswerRules['source'] {
  if (format?.type === 'json_object') {
    return {
      grammar: { kind: 'schema', schema: '{"type":"object","additionalProperties":true}' },
      param: 'response_format',
    };
  }
  if (format?.type !== 'json_schema') return undefined;
  const param = 'response_format.json_schema.schema';
  return { grammar: { kind: 'schema', schema: toJson(format.json_schema.schema, param) }, param };
}

const anyArguments = { type: 'object', additionalProperties: true };

/** Arguments are an object, also where values of other types would fit. Throws ApiError where none would. */
function argumentsOf(tool: string, parameters: Readonly<Record<string, unknown>>): object {
  if (Object.keys(parameters).length === 0) return emptyParameters;
  const { type = 'object' } = parameters;
  if (type === 'object' || (Array.isArray(type) && type.includes('object'))) return { ...parameters, type: 'object' };
  throw badRequest(`tool ${tool}: its parameters must have the type "object"`, 'tools', 'invalid_schema');
}

/**
 * Calls that must be made have the arguments that their tools describe. Those that may be made are left alone, unless a tool
 * asks for that (`strict`), or only one of them is wanted.
 */
function callSource({ format, marks }: ToolUse, choice: CallChoice, several: boolean): AnswerRules['source'] {
  const { among, optional } = choice;
  if (optional && several && !among.some((tool) => tool.function.strict === true)) return undefined;
  const described = among.map(({ function: { name, parameters, strict } }): Tool => ({
    name,
    parameters: optional && strict !== true ? anyArguments : argumentsOf(name, parameters ?? {}),
  }));
  for (const { name, parameters } of described) {
    try {
      followableSchema(parameters);
    } catch (error) {
      throw badRequest(`tool ${name}: ${messageOf(error)}`, 'tools', 'invalid_schema');
    }
  }
  const structure = toJson({ format: format.structure(described, { several, optional }) }, 'tools');
  return { grammar: { kind: 'structure', structure, textTokens: marks }, param: 'tools' };
}

function toJson(value: object, param: string): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    // Nested so deep that nobody can walk it.
    throw badRequest(`${param}: ${messageOf(error)}`, param, 'invalid_schema');
  }
}
