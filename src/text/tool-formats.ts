/**
 * How models write calls of tools, by what their chat templates say about it. Each format reads calls out of a text, and
 * describes texts with calls, for constrained sampling.
 *
 *   hermes    <tool_call>{"name": ..., "arguments": {...}}</tool_call>, among other text (Hermes, Qwen)
 *   mistral   [TOOL_CALLS] and a list of such objects, or name[ARGS]{...}, to the end of the text
 *   llama     {"name": ..., "parameters": {...}}, the whole text, perhaps after <|python_tag|>
 */
import { parsed, writtenItems, writtenMembers, writtenObject } from './written-json.js';

export interface Tool {
  readonly name: string;
  /** JSON schema of an object. */
  readonly parameters: object;
}

export interface ToolCall {
  readonly name: string;
  /** A JSON object as the model writes it, without white space between its tokens. */
  readonly arguments: string;
}

export interface ToolFormat {
  readonly name: 'hermes' | 'mistral' | 'llama';
  /** What a call begins with; empty where a text is a call from its very beginning. */
  readonly marks: readonly string[];
  /** What ends a call; without it the text does. */
  readonly end: string | undefined;
  /** The calls of such a part, its marks included; undefined where it is something else. */
  read(part: string): readonly ToolCall[] | undefined;
  /** A structure (grammar.ts) of calls. */
  structure(tools: readonly Tool[], answer: CallRules): object;
}

export interface CallRules {
  /** More than one call may be made. */
  readonly several: boolean;
  /** Calls may be left out, and stand among other text. */
  readonly optional: boolean;
}

/** The format of a template; undefined where it knows no tools, or writes calls in another way. */
export function toolFormatOf(template: string): ToolFormat | undefined {
  if (!/\btools\b/.test(template)) return undefined;
  if (template.includes('<tool_call>')) return hermes;
  if (template.includes('[TOOL_CALLS]')) return mistral;
  return template.includes('python_tag') || template.includes('"parameters"') ? llama : undefined;
}

const hermes: ToolFormat = {
  name: 'hermes',
  marks: ['<tool_call>'],
  end: '</tool_call>',
  read: (part) => one(callOf(part.replace(/^<tool_call>/, '').replace(/<\/tool_call>$/, ''))),
  structure(tools, { several, optional }) {
    const calls = tags(tools, '<tool_call>\n{"name": ', '"arguments"', '}\n</tool_call>');
    return optional ? amongText('<tool_call>', calls, several) : listOf(calls, '\n', several);
  },
};

const mistral: ToolFormat = {
  name: 'mistral',
  marks: ['[TOOL_CALLS]'],
  end: undefined,
  read(part) {
    const parts = part.split('[TOOL_CALLS]').slice(1);
    const calls: ToolCall[] = [];
    for (let at = 0; at < parts.length;) {
      const [read, count] = firstCalls(parts, at);
      if (read === undefined) return undefined;
      calls.push(...read);
      at += count;
    }
    return calls;
  },
  structure(tools, { several, optional }) {
    const list = listOf(tags(tools, '{"name": ', '"arguments"', '}'), ', ', several);
    const calls = { type: 'tag', begin: '[TOOL_CALLS][', content: list, end: ']' };
    return optional ? amongText('[TOOL_CALLS]', [calls], false) : calls;
  },
};

const llama: ToolFormat = {
  name: 'llama',
  marks: ['<|python_tag|>', ''],
  end: undefined,
  read(part) {
    const text = part.replace(/^\s*<\|python_tag\|>/, '');
    return one(callOf(text)) ?? all(text.split(/;\s*(?=\{"name")/).map(callOf));
  },
  structure(tools, { several, optional }) {
    const bare = listOf(tags(tools, '{"name": ', '"parameters"', '}'), '; ', several);
    if (!optional) return bare;
    const mark = '<|python_tag|>';
    const call = tags(tools, `${mark}{"name": `, '"parameters"', '}');
    // What no call begins with, as far as it takes to be certain; and all that is shorter.
    const certain = regex(String.raw`\s*([^{<\s]|<[^|])`);
    const short = regex(String.raw`\s*<?`);
    return {
      type: 'or',
      elements: [
        sequence(regex(String.raw`\s*`), bare),
        sequence(short, { ...listOf(call, '; ', false), at_least_one: false }),
        sequence(certain, amongText(mark, call, false)),
      ],
    };
  },
};

function tags(tools: readonly Tool[], begin: string, field: string, end: string): object[] {
  return tools.map(({ name, parameters }) => ({
    type: 'tag',
    begin: `${begin}${JSON.stringify(name)}, ${field}: `,
    content: { type: 'json_schema', json_schema: parameters },
    end,
  }));
}

function regex(pattern: string): object {
  return { type: 'regex', pattern };
}

function sequence(...elements: readonly object[]): object {
  return { type: 'sequence', elements };
}

function amongText(mark: string, tagList: readonly object[], several: boolean): object {
  const parts = { type: 'triggered_tags', triggers: [mark], tags: tagList };
  return { ...parts, at_least_one: false, stop_after_first: !several };
}

function listOf(tagList: readonly object[], separator: string, several: boolean): object {
  const list = { type: 'tags_with_separator', tags: tagList, separator };
  return { ...list, at_least_one: true, stop_after_first: !several };
}

/** Marks in strings that are passed over for the calls behind one mark; each part is read as often, at most. */
const mostPassed = 8;

/** The calls of the first parts from there, as few as it takes: a mark between two may be in a string. And how many. */
function firstCalls(parts: readonly string[], from: number): [calls: readonly ToolCall[] | undefined, count: number] {
  let text = parts[from]!;
  for (let count = 1; ; count++) {
    const read = listedCalls(text) ?? namedCall(text);
    const next = parts[from + count];
    if (read !== undefined || next === undefined || count > mostPassed) return [read, count];
    text += `[TOOL_CALLS]${next}`;
  }
}

/** Mistral's older way. */
function listedCalls(text: string): readonly ToolCall[] | undefined {
  const list = writtenItems(text);
  return list !== undefined && list.length > 0 ? all(list.map(callOf)) : undefined;
}

/** Its newer one: the name, then the arguments. */
function namedCall(text: string): readonly ToolCall[] | undefined {
  const [, name, given] = /^\s*([\w-]{1,64})\s*(?:\[ARGS\]\s*)?(\{.*)$/s.exec(text) ?? [];
  const args = given === undefined ? undefined : writtenObject(given);
  return name === undefined || args === undefined ? undefined : [{ name, arguments: args }];
}

/** A call that is an object with its name and arguments; they may be a text that holds the object. */
function callOf(text: string): ToolCall | undefined {
  const members = writtenMembers(text);
  const name = parsed(members?.get('name') ?? '');
  if (members === undefined || typeof name !== 'string') return undefined;
  const given = ['arguments', 'parameters'].map((key) => members.get(key) ?? 'null');
  const args = given.find((one) => one !== 'null') ?? '{}';
  const inner = args.startsWith('"') ? (JSON.parse(args) as string) : args;
  const written = writtenObject(inner);
  return written === undefined ? undefined : { name, arguments: written };
}

function one(call: ToolCall | undefined): readonly ToolCall[] | undefined {
  return call === undefined ? undefined : [call];
}

/** All of them, or undefined where one is missing. */
function all<T>(values: readonly (T | undefined)[]): readonly T[] | undefined {
  return values.some((value) => value === undefined) ? undefined : (values as readonly T[]);
}
