/**
 * Which JSON schemas can be followed token by token. A keyword that would be left out silently is refused: what comes out
 * must be valid, and not nearly so.
 */
import { UsageError } from '../util/errors.js';
import { lengthPattern, writtenPattern } from './json-string-pattern.js';

const maxDepth = 64;
const maxSchemas = 2000;

const annotations =
  'title description default examples example $schema $id $comment deprecated readOnly writeOnly contentMediaType'.split(
    ' ',
  );
/** Keywords that hold no schemas, and are followed. */
const plain =
  'type enum const required minItems maxItems minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum minProperties maxProperties $ref format'.split(
    ' ',
  );
const holdsOne = ['items', 'additionalProperties', 'unevaluatedProperties', 'unevaluatedItems'];
const holdsList = ['anyOf', 'oneOf', 'allOf', 'prefixItems'];
const holdsMap = ['properties', '$defs', 'definitions'];
const known = new Set([...annotations, ...plain, ...holdsOne, ...holdsList, ...holdsMap]);

const formats = new Set(
  'date time date-time duration email hostname ipv4 ipv6 uri uri-reference uri-template json-pointer relative-json-pointer uuid'.split(
    ' ',
  ),
);

/** The schema in words that are followed exactly. Throws UsageError, which names the place. */
export function followableSchema(schema: unknown): unknown {
  let count = 0;
  const follow = (value: unknown, path: string, depth: number): unknown => {
    if (typeof value === 'boolean') return value;
    if (!isObject(value)) throw refused(path, 'is no schema');
    if (++count > maxSchemas) throw new UsageError(`the schema has more than ${maxSchemas} parts`);
    if (depth > maxDepth) throw new UsageError(`the schema is nested more than ${maxDepth} deep`);
    checkKeywords(value, path);
    const inside = (name: string, one: unknown): unknown => follow(one, `${path}/${name.slice(0, 100)}`, depth + 1);
    const parts: Record<string, unknown> = {};
    for (const key of holdsOne) if (key in value) parts[key] = inside(key, value[key]);
    for (const key of holdsList) {
      if (key in value) parts[key] = listOf(value, key, path).map((one, i) => inside(`${key}/${i}`, one));
    }
    for (const key of holdsMap) {
      const entries = Object.entries(mapOf(value, key, path));
      if (key in value)
        parts[key] = Object.fromEntries(entries.map(([name, one]) => [name, inside(`${key}/${name}`, one)]));
    }
    return { ...value, ...parts, ...textRules(value, path) };
  };
  return follow(schema, '#', 0);
}

/** The rules of a text as one pattern. */
function textRules({ pattern, format, minLength, maxLength }: Record<string, unknown>, path: string): object {
  const lengths = minLength !== undefined || maxLength !== undefined;
  if ([pattern !== undefined, format !== undefined, lengths].filter(Boolean).length > 1) {
    throw refused(path, 'has several of pattern, format and lengths');
  }
  if (typeof pattern === 'string') return { pattern: writtenPattern(pattern) };
  if (!lengths) return {};
  const [min, max] = [minLength ?? 0, maxLength];
  const fits = isCount(min) && (max === undefined || (isCount(max) && max >= min));
  if (!fits) throw refused(path, 'has lengths that are none');
  return { minLength: undefined, maxLength: undefined, pattern: lengthPattern(min, max) };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function checkKeywords(schema: Record<string, unknown>, path: string): void {
  const unknown = Object.keys(schema).find((key) => !known.has(key) && !key.startsWith('x-'));
  if (unknown !== undefined) throw refused(path, `has the keyword ${JSON.stringify(unknown.slice(0, 100))}`);
  const { allOf, format, $ref: ref, required } = schema;
  if (Array.isArray(allOf) && allOf.length > 1) throw refused(path, 'has allOf with several schemas');
  if (format !== undefined && !(typeof format === 'string' && formats.has(format))) {
    throw refused(path, `has the format ${JSON.stringify(format).slice(0, 100)}`);
  }
  if (ref !== undefined && !(typeof ref === 'string' && ref.startsWith('#/')))
    throw refused(path, 'has a $ref to elsewhere');
  if (required === undefined) return;
  const properties = mapOf(schema, 'properties', path);
  if (!Array.isArray(required)) throw refused(path, 'has a required that is no list');
  const missing = required.find((name) => typeof name !== 'string' || !Object.hasOwn(properties, name)) as unknown;
  if (missing !== undefined)
    throw refused(path, `requires ${JSON.stringify(missing).slice(0, 100)}, which is no property`);
}

function refused(path: string, what: string): UsageError {
  return new UsageError(`the schema at ${path.slice(0, 200)} ${what}, which is not supported`);
}

function listOf(schema: Record<string, unknown>, key: string, path: string): readonly unknown[] {
  const list = schema[key] ?? [];
  if (!Array.isArray(list) || (key in schema && list.length === 0)) throw refused(path, `has ${key} without schemas`);
  return list;
}

function mapOf(schema: Record<string, unknown>, key: string, path: string): Record<string, unknown> {
  const map = schema[key] ?? {};
  if (!isObject(map)) throw refused(path, `has ${key} that is no object`);
  return map;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
