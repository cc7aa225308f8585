/**
 * Which JSON schemas can be followed token by token. A keyword that would be left out silently is refused: what comes out
 * must be valid, and not nearly so.
 */
import { UsageError } from '../util/errors.js';
import { checkEnds } from './json-schema-ends.js';
import { SchemaRewriter, type FollowableSchema } from './json-schema-rewriter.js';
import {
  annotations,
  holdsChoices,
  holdsList,
  holdsMap,
  holdsOne,
  isNothing,
  saysNothing,
  type Schema,
} from './json-schema-rules.js';
import { refused } from './json-text-rules.js';
import { isObject } from './written-json.js';

const maxDepth = 64;
const maxSchemas = 2000;

/** Keywords that hold no schemas, and are followed. */
const plain =
  'type enum const required minItems maxItems minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum minProperties maxProperties $ref format nullable'.split(
    ' ',
  );
const known = new Set([...annotations, ...plain, ...holdsOne, ...holdsList, ...holdsMap]);

/** The schema in words that are followed exactly. Throws UsageError, which names the place. */
export function followableSchema(schema: unknown): FollowableSchema {
  const places = new Places(schema);
  const rewriter = new SchemaRewriter(schema, places, maxSchemas);
  const followable = rewriter.rewrite();
  checkEnds(followable.schema, rewriter.origins);
  return followable;
}

/** The schemas within a schema, and what their references lead to. */
class Places {
  readonly #paths = new Map<Schema, string>();

  constructor(private readonly root: unknown) {
    this.#survey(root, '#', 0);
    this.#checkReferences();
  }

  pathOf(schema: Schema): string {
    return this.#paths.get(schema)!;
  }

  put<T extends Schema>(schema: T, path: string): T {
    this.#paths.set(schema, path);
    return schema;
  }

  targetOf(schema: Schema): unknown {
    const path = this.pathOf(schema);
    const ref = schema['$ref'] as string;
    if (/[~%]/.test(ref)) throw refused(path, 'has a $ref with ~ or %', 'rename what it leads to');
    let target = this.root;
    for (const name of ref.split('/').slice(1)) {
      target =
        (isObject(target) || Array.isArray(target)) && Object.hasOwn(target, name)
          ? (target as Schema)[name]
          : undefined;
    }
    const isKnown = typeof target === 'boolean' || (isObject(target) && this.#paths.has(target));
    if (!isKnown) throw refused(path, `has a $ref to ${JSON.stringify(ref.slice(0, 100))}, which is no schema`);
    return target;
  }

  #survey(value: unknown, path: string, depth: number): void {
    if (typeof value === 'boolean') return;
    if (!isObject(value)) throw refused(path, 'is no schema');
    if (this.#paths.size >= maxSchemas) throw new UsageError(`the schema has more than ${maxSchemas} parts`);
    if (depth > maxDepth) throw new UsageError(`the schema is nested more than ${maxDepth} deep`);
    checkKeywords(value, path);
    this.#paths.set(value, path);
    const inside = (name: string, one: unknown): void => this.#survey(one, `${path}/${name.slice(0, 100)}`, depth + 1);
    for (const key of holdsOne) if (key in value && !isTuple(value, key)) inside(key, value[key]);
    for (const key of [...holdsList, ...(isTuple(value, 'items') ? ['items'] : [])]) {
      for (const [i, one] of listOf(value, key, path).entries()) inside(`${key}/${i}`, one);
    }
    for (const key of holdsMap) {
      for (const [name, one] of Object.entries(mapOf(value, key, path))) inside(`${key}/${name}`, one);
    }
  }

  /** Every `$ref` leads to one of the schemas, and not back to itself without a list or an object between. */
  #checkReferences(): void {
    const seen = new Set<Schema>();
    const under = new Set<Schema>();
    const visit = (schema: unknown): void => {
      if (!isObject(schema) || seen.has(schema)) return;
      const path = this.pathOf(schema);
      if (under.has(schema)) throw refused(path, 'leads back to itself by $ref without a list or an object between');
      under.add(schema);
      for (const key of holdsChoices) for (const one of listOf(schema, key, path)) visit(one);
      if (schema['$ref'] !== undefined) visit(this.targetOf(schema));
      under.delete(schema);
      seen.add(schema);
    };
    for (const schema of this.#paths.keys()) visit(schema);
  }
}

/** Before 2020 the items of a tuple were a list in `items`. */
function isTuple(schema: Schema, key: string): boolean {
  return key === 'items' && Array.isArray(schema[key]);
}

function checkKeywords(schema: Schema, path: string): void {
  const isKnown = (key: string): boolean =>
    known.has(key) || key.startsWith('x-') || saysNothing(schema, key) || (key === 'not' && isNothing(schema));
  const unknown = Object.keys(schema).find((key) => !isKnown(key));
  if (unknown !== undefined) throw refused(path, `has the keyword ${JSON.stringify(unknown.slice(0, 100))}`);
  const { $ref: ref, nullable } = schema;
  if (nullable !== undefined && typeof nullable !== 'boolean') throw refused(path, 'has nullable that is no boolean');
  if (ref !== undefined && !(typeof ref === 'string' && /^#(\/|$)/.test(ref)))
    throw refused(path, 'has a $ref to elsewhere');
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
