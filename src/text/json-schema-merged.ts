/**
 * Plain objects of an `allOf`, and what stands beside it, as one object: all properties, and all that are required. What one
 * of them has no room for, or two of them describe in different words, is refused.
 *
 *   { allOf: [{ properties: { a: A } }, { $ref: B }], required: ['a'] }   -->   { properties: { a: A, b: B }, required: ['a'] }
 */
import { isNothing, sayingOf, type Schema } from './json-schema-rules.js';
import { typesOf, type SchemaPlaces } from './json-schema-types.js';
import { refused } from './json-text-rules.js';
import { isObject } from './written-json.js';

/** Keywords of objects that are merged. */
const plain = new Set(['type', 'properties', 'required', 'additionalProperties', 'unevaluatedProperties']);

export class MergedObjects {
  readonly #known = new Map<Schema, Schema | undefined>();

  constructor(private readonly places: SchemaPlaces) {}

  /** Of a schema with `allOf`; undefined where it is no merging of several objects. Throws UsageError. */
  of(schema: Schema): Schema | undefined {
    if (!this.#known.has(schema)) this.#known.set(schema, this.#merge(schema));
    return this.#known.get(schema);
  }

  #merge(schema: Schema): Schema | undefined {
    const path = this.places.pathOf(schema);
    const { unevaluatedProperties: others, ...rest } = schema;
    // Beside `allOf` it is about what none of them names.
    const parts = this.#partsOf(others === undefined || isNothing(others) ? this.places.put(rest, path) : schema);
    const saysMore = (one: Schema): boolean => sayingOf(one).some((key) => !plain.has(key));
    if (parts === undefined || parts.length < 2 || parts.some(saysMore)) return undefined;
    if (!parts.some((one) => 'properties' in one)) return undefined;
    if (!parts.every((one) => typesOf(one['type']).has('object'))) {
      throw refused(path, 'has allOf of an object and of what is none');
    }
    const properties = new Map<string, unknown>();
    for (const [name, one] of parts.flatMap((part) => Object.entries((part['properties'] ?? {}) as Schema))) {
      if (properties.has(name) && JSON.stringify(properties.get(name)) !== JSON.stringify(one))
        throw refused(path, `has allOf with several schemas of ${JSON.stringify(name.slice(0, 100))}`);
      properties.set(name, one);
    }
    for (const part of parts) checkRoom(part, [...properties.keys()], path);
    const required = new Set(parts.flatMap((part) => part['required'] ?? []));
    return this.places.put(
      { type: 'object', properties: Object.fromEntries(properties), required: [...required] },
      path,
    );
  }

  /** With those of references and of `allOf` within; undefined where one is `true` or `false`. */
  #partsOf(root: Schema): Schema[] | undefined {
    const parts: Schema[] = [];
    const seen = new Set<Schema>();
    const collect = (schema: unknown): boolean => {
      if (!isObject(schema)) return false;
      if (seen.has(schema)) return true;
      seen.add(schema);
      const { $ref: ref, allOf, ...own } = schema;
      const others = [...(ref === undefined ? [] : [this.places.targetOf(schema)]), ...((allOf ?? []) as unknown[])];
      const areObjects = others.every(collect);
      if (sayingOf(own).length > 0) parts.push(own);
      return areObjects;
    };
    return collect(root) ? parts : undefined;
  }
}

/** Others than those that are named do not come, unless a schema asks for them: that is not merged. */
function checkRoom(part: Schema, names: readonly string[], path: string): void {
  const others = part['additionalProperties'] ?? part['unevaluatedProperties'];
  if (others === undefined) return;
  if (!isNothing(others)) throw refused(path, 'has allOf with properties of any name');
  const own = (part['properties'] ?? {}) as Schema;
  const extra = names.find((name) => !Object.hasOwn(own, name));
  if (extra !== undefined) {
    const what = `has allOf with ${JSON.stringify(extra.slice(0, 100))}, for which one of its objects has no room`;
    throw refused(path, what, 'leave additionalProperties: false out there');
  }
}
