/**
 * Parts of a JSON text as they are written: numbers keep their digits, texts their escapes, and only white space between
 * tokens is left out. What a model writes is not for us to round.
 *
 *   {"x": 12345678901234567890, "y": [1.0]}   -->   x: 12345678901234567890, y: [1.0]
 */

const token = /"(?:[^"\\]+|\\[^])*"|[{}[\],:]|[^\s"{}[\],:]+/g;

/** The members of an object; of two with one name the last. Undefined where the text is no JSON object. */
export function writtenMembers(text: string): ReadonlyMap<string, string> | undefined {
  if (!isObject(parsed(text))) return undefined;
  const members = parts(text).map(([name, , ...value]) => [JSON.parse(name!) as string, value.join('')] as const);
  return new Map(members);
}

/** The items of a list. Undefined where the text is no JSON list. */
export function writtenItems(text: string): readonly string[] | undefined {
  return Array.isArray(parsed(text)) ? parts(text).map((item) => item.join('')) : undefined;
}

/** Without white space between tokens. Undefined where the text is no JSON object. */
export function writtenObject(text: string): string | undefined {
  return isObject(parsed(text)) ? text.match(token)!.join('') : undefined;
}

/** The tokens between the commas of an object or a list, which is valid. */
function parts(text: string): string[][] {
  const list: string[][] = [];
  let depth = 0;
  for (const part of text.match(token)!.slice(1, -1)) {
    if (part === '{' || part === '[') depth++;
    if (part === '}' || part === ']') depth--;
    if (list.length === 0) list.push([]);
    if (part === ',' && depth === 0) list.push([]);
    else list.at(-1)!.push(part);
  }
  return list;
}

/** The value of a JSON text; undefined where it is none. */
export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
