/** Which types the values of schemas have. */
import { isNothing, typeOf, valuesOf, type Schema } from './json-schema-rules.js';
import { isObject } from './written-json.js';

/** Names of types; a number is an integer or a fraction. */
export type Types = ReadonlySet<string>;

export const allTypes: Types = new Set(['null', 'boolean', 'integer', 'fraction', 'string', 'array', 'object']);

/** Those that a `type` names; all where there is none. */
export function typesOf(type: unknown): Types {
  if (type === undefined) return allTypes;
  const names: readonly unknown[] = Array.isArray(type) ? type : [type];
  return new Set(names.flatMap((name) => (name === 'number' ? ['integer', 'fraction'] : [String(name)])));
}

/** As a `type` names them. */
export function typeNames(types: Types): string[] {
  return [...types].flatMap((type) => {
    if (type === 'fraction') return ['number'];
    return type === 'integer' && types.has('fraction') ? [] : [type];
  });
}

export function common(a: Types, b: Types): Types {
  return new Set([...a].filter((type) => b.has(type)));
}

export function isWithin(part: Types, all: Types): boolean {
  return [...part].every((type) => all.has(type));
}

export interface SchemaPlaces {
  pathOf(schema: Schema): string;
  targetOf(schema: Schema): unknown;
  /** Gives the path to a schema that is made of the one there; it is the same one. */
  put<T extends Schema>(schema: T, path: string): T;
}

/** Those that values of schemas may have; no `$ref` leads back to itself. */
export class ValueTypes {
  readonly #known = new Map<Schema, Types>();

  constructor(private readonly places: SchemaPlaces) {}

  of(schema: unknown): Types {
    if (isNothing(schema)) return new Set();
    if (!isObject(schema)) return allTypes;
    const known = this.#known.get(schema) ?? this.#typesOf(schema);
    this.#known.set(schema, known);
    return known;
  }

  #typesOf(schema: Schema): Types {
    const types = common(typesOf(schema['type']), this.#besideType(schema));
    return schema['nullable'] === true ? new Set([...types, 'null']) : types;
  }

  #besideType(schema: Schema): Types {
    if ('$ref' in schema) return this.of(this.places.targetOf(schema));
    if ('enum' in schema || 'const' in schema) {
      return new Set(valuesOf(schema, this.places.pathOf(schema)).map(typeOfValue));
    }
    const choices = (schema['anyOf'] ?? schema['oneOf'] ?? schema['allOf']) as readonly unknown[] | undefined;
    if (choices === undefined) {
      return schema['type'] === undefined ? typesOf(typeOf(schema, this.places.pathOf(schema))) : allTypes;
    }
    const types = choices.map((choice) => this.of(choice));
    return 'allOf' in schema ? types.reduce(common) : new Set(types.flatMap((some) => [...some]));
  }
}

function typeOfValue(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  return typeof value === 'number' ? (Number.isInteger(value) ? 'integer' : 'fraction') : typeof value;
}
