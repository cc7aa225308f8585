/**
 * How models write calls of tools, by what their chat templates say about it. Each format reads calls out of a text, and
 * describes texts with calls, for constrained sampling.
 *
 *   hermes    <tool_call>{"name": ..., "arguments": {...}}</tool_call>, among other text (Hermes, Qwen)
 *   mistral   [TOOL_CALLS] and a list of such objects, or name[ARGS]{...}, to the end of the text
 *   llama     {"name": ..., "parameters": {...}}, the whole text, perhaps after <|python_tag|>
 */

export interface Tool {
  readonly name: string;
  /** JSON schema of an object. */
  readonly parameters: object;
}

export interface ToolCall {
  readonly name: string;
  /** A JSON object, as text. */
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
  read: (part) => one(callOf(parse(part.replace(/^<tool_call>/, '').replace(/<\/tool_call>$/, '')))),
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
    return all(parts.map((text) => listedCalls(text) ?? namedCall(text)))?.flat();
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
    return one(callOf(parse(text))) ?? all(text.split(/;\s*(?=\{"name")/).map((call) => callOf(parse(call))));
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

/** Mistral's older way. */
function listedCalls(text: string): readonly ToolCall[] | undefined {
  const list = parse(text);
  return Array.isArray(list) && list.length > 0 ? all(list.map(callOf)) : undefined;
}

/** Its newer one: the name, then the arguments. */
function namedCall(text: string): readonly ToolCall[] | undefined {
  const [, name, args] = /^\s*([\w-]{1,64})\s*(?:\[ARGS\])?\s*(\{.*)$/s.exec(text) ?? [];
  return name === undefined ? undefined : one(callOf({ name, arguments: parse(args ?? '') }));
}

function callOf(value: unknown): ToolCall | undefined {
  if (!isObject(value) || typeof value['name'] !== 'string') return undefined;
  const given = value['arguments'] ?? value['parameters'] ?? {};
  const args = typeof given === 'string' ? parse(given) : given;
  return isObject(args) ? { name: value['name'], arguments: JSON.stringify(args) } : undefined;
}

function one(call: ToolCall | undefined): readonly ToolCall[] | undefined {
  return call === undefined ? undefined : [call];
}

/** All of them, or undefined where one is missing. */
function all<T>(values: readonly (T | undefined)[]): readonly T[] | undefined {
  return values.some((value) => value === undefined) ? undefined : (values as readonly T[]);
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
