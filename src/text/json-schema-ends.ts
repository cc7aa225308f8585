/**
 * Whether the values of a schema can end. An object that requires itself, with no way around, never does: a text that is
 * made to fit it would only end where it is cut.
 */
import { UsageError } from '../util/errors.js';
import { holdsList, holdsMap, holdsOne, type Schema } from './json-schema-rules.js';
import { isObject } from './written-json.js';

/** Schemas of which one must have a value that ends. */
type Need = readonly unknown[];

/**
 * Of a schema as it is followed, where all that is in it can come. `origins` has the paths of what its parts were made of.
 * Throws UsageError for a part without a value that ends.
 */
export function checkEnds(root: unknown, origins: ReadonlyMap<object, string>): void {
  const definitions = (isObject(root) ? (root['$defs'] ?? {}) : {}) as Schema;
  const targetOf = (ref: string): unknown => (ref === '#' ? root : definitions[ref.replace('#/$defs/', '')]);
  const needs = new Map(schemasWithin(root).map((schema) => [schema, needsOf(schema, targetOf)]));
  const ending = new Set<unknown>();
  const isOpen = (need: Need): boolean => need.every((schema) => isObject(schema) && !ending.has(schema));
  for (let before = -1; before < ending.size;) {
    before = ending.size;
    for (const [schema, all] of needs) if (!all.some(isOpen)) ending.add(schema);
  }
  const endless = [...needs.keys()].find((schema) => !ending.has(schema));
  if (endless === undefined) return;
  const circle = circleFrom(endless, (schema) => needs.get(schema)!.find(isOpen)![0] as Schema);
  const at = circle.find((schema) => needs.get(schema)!.length > 0 && !('$ref' in schema)) ?? circle[0]!;
  const path = (origins.get(at) ?? '#').slice(0, 200);
  throw new UsageError(`the schema at ${path} requires itself within itself, so that no value of it ends`, {
    hint: 'make the property that leads back optional or null, or a list that may be empty',
  });
}

function schemasWithin(root: unknown): Schema[] {
  const found = new Set<Schema>();
  const visit = (schema: unknown): void => {
    if (!isObject(schema)) return;
    found.add(schema);
    for (const key of holdsList) ((schema[key] ?? []) as unknown[]).forEach(visit);
    for (const key of holdsOne) visit(schema[key]);
    for (const key of holdsMap) Object.values(schema[key] ?? {}).forEach(visit);
  };
  visit(root);
  return [...found];
}

function needsOf(schema: Schema, targetOf: (ref: string) => unknown): Need[] {
  const { $ref: ref, properties, required, prefixItems, items } = schema;
  if (typeof ref === 'string') return [[targetOf(ref)]];
  const choices = schema['anyOf'] ?? schema['oneOf'] ?? schema['allOf'];
  if (choices !== undefined) return [choices as unknown[]];
  const values = (properties ?? {}) as Schema;
  const needs: Need[] = ((required ?? []) as string[]).map((name) => [values[name]]);
  if (Number(schema['minProperties'] ?? 0) > needs.length) {
    const patterns = Object.values((schema['patternProperties'] ?? {}) as Schema);
    needs.push([...Object.values(values), ...patterns, schema['additionalProperties'] ?? false]);
  }
  const first = (prefixItems ?? []) as unknown[];
  const least = Number(schema['minItems'] ?? 0);
  needs.push(...first.slice(0, least).map((one) => [one]));
  if (least > first.length && items !== undefined) needs.push([items]);
  return needs;
}

/** Where it leads again and again. */
function circleFrom(start: Schema, next: (schema: Schema) => Schema): Schema[] {
  const passed: Schema[] = [];
  let at = start;
  while (!passed.includes(at)) {
    passed.push(at);
    at = next(at);
  }
  return passed.slice(passed.indexOf(at));
}
