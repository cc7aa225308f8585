/**
 * Which JSON schemas can be followed token by token. A keyword that would be left out silently is refused: what comes out
 * must be valid, and not nearly so.
 */
import { show } from '../util/checked.js';
import { UsageError } from '../util/errors.js';
import { annotations, followableRules, refused, type Schema } from './json-schema-rules.js';
import { isObject } from './written-json.js';

const maxDepth = 64;
const maxSchemas = 2000;

/** Keywords that hold no schemas, and are followed. */
const plain =
  'type enum const required minItems maxItems minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum minProperties maxProperties $ref format'.split(
    ' ',
  );
const holdsOne = ['items', 'additionalProperties', 'unevaluatedProperties', 'unevaluatedItems'];
/** Of the same value. */
const holdsChoices = ['anyOf', 'oneOf', 'allOf'];
const holdsList = [...holdsChoices, 'prefixItems'];
const holdsMap = ['properties', '$defs', 'definitions'];
const known = new Set([...annotations, ...plain, ...holdsOne, ...holdsList, ...holdsMap]);

/** The schema in words that are followed exactly. Throws UsageError, which names the place. */
export function followableSchema(schema: unknown): unknown {
  const paths = new Map<Schema, string>();
  let count = 0;
  const follow = (value: unknown, path: string, depth: number): unknown => {
    if (typeof value === 'boolean') return value;
    if (!isObject(value)) throw refused(path, 'is no schema');
    if (++count > maxSchemas) throw new UsageError(`the schema has more than ${maxSchemas} parts`);
    if (depth > maxDepth) throw new UsageError(`the schema is nested more than ${maxDepth} deep`);
    checkKeywords(value, path);
    paths.set(value, path);
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
    return { ...value, ...parts, ...followableRules(value, path) };
  };
  const followable = follow(schema, '#', 0);
  checkReferences(schema, paths);
  return followable;
}

/** Every `$ref` leads to one of the schemas followed, and not back to itself without a list or an object between. */
function checkReferences(root: unknown, paths: ReadonlyMap<Schema, string>): void {
  const seen = new Set<Schema>();
  const under = new Set<Schema>();
  const visit = (schema: unknown): void => {
    if (!isObject(schema) || seen.has(schema)) return;
    const path = paths.get(schema)!;
    if (under.has(schema)) throw refused(path, 'leads back to itself by $ref without a list or an object between');
    under.add(schema);
    for (const key of holdsChoices) for (const one of listOf(schema, key, path)) visit(one);
    if (schema['$ref'] !== undefined) visit(targetOf(root, schema['$ref'] as string, path, paths));
    under.delete(schema);
    seen.add(schema);
  };
  for (const schema of paths.keys()) visit(schema);
}

function targetOf(root: unknown, ref: string, path: string, paths: ReadonlyMap<Schema, string>): unknown {
  if (/[~%]/.test(ref)) throw refused(path, 'has a $ref with ~ or %', 'rename what it leads to');
  let target = root;
  for (const name of ref.split('/').slice(1)) {
    target = isObject(target) && Object.hasOwn(target, name) ? target[name] : undefined;
  }
  const isKnown = typeof target === 'boolean' || (isObject(target) && paths.has(target));
  if (!isKnown) throw refused(path, `has a $ref to ${JSON.stringify(ref.slice(0, 100))}, which is no schema`);
  return target;
}

function checkKeywords(schema: Schema, path: string): void {
  const unknown = Object.keys(schema).find((key) => !known.has(key) && !key.startsWith('x-'));
  if (unknown !== undefined) throw refused(path, `has the keyword ${JSON.stringify(unknown.slice(0, 100))}`);
  const { allOf, $ref: ref, required } = schema;
  if (Array.isArray(allOf) && allOf.length > 1) throw refused(path, 'has allOf with several schemas');
  if (ref !== undefined && !(typeof ref === 'string' && ref.startsWith('#/')))
    throw refused(path, 'has a $ref to elsewhere');
  const properties = mapOf(schema, 'properties', path);
  const escaped = Object.keys(properties).find((name) => JSON.stringify(name) !== `"${name}"`);
  if (escaped !== undefined)
    throw refused(path, `has the property ${JSON.stringify(escaped.slice(0, 100))}, whose name JSON has to escape`);
  if (required === undefined) return;
  if (!Array.isArray(required)) throw refused(path, 'has a required that is no list');
  const missing = required.find((name) => typeof name !== 'string' || !Object.hasOwn(properties, name)) as unknown;
  if (missing !== undefined) throw refused(path, `requires ${show(missing)}, which is no property`);
}

function listOf(schema: Schema, key: string, path: string): readonly unknown[] {
  const list = schema[key] ?? [];
  if (!Array.isArray(list) || (key in schema && list.length === 0)) throw refused(path, `has ${key} without schemas`);
  return list;
}

function mapOf(schema: Schema, key: string, path: string): Schema {
  const map = schema[key] ?? {};
  if (!isObject(map)) throw refused(path, `has ${key} that is no object`);
  return map;
}
