/** Values that a JSON schema describes, as far as our OpenAPI document uses JSON schema; and some that it does not. */
import fc from 'fast-check';

export type JsonSchema = Readonly<Record<string, unknown>>;

/** Values of the schema; every place has a small chance to hold anything instead. */
export function valuesOf(schema: JsonSchema, wrong = 0.02): fc.Arbitrary<unknown> {
  const right = rightValues(schema, wrong);
  return fc.oneof(
    { arbitrary: right, weight: Math.round(1 / wrong) },
    { arbitrary: fc.jsonValue({ maxDepth: 2 }), weight: 1 },
  );
}

function rightValues(schema: JsonSchema, wrong: number): fc.Arbitrary<unknown> {
  const of = (value: unknown): fc.Arbitrary<unknown> => valuesOf(value as JsonSchema, wrong);
  if ('const' in schema) return fc.constant(schema['const']);
  if ('enum' in schema) return fc.constantFrom(...(schema['enum'] as unknown[]));
  const union = (schema['anyOf'] ?? schema['oneOf']) as JsonSchema[] | undefined;
  if (union !== undefined) return fc.oneof(...union.map(of));
  const number = (name: string, otherwise: number): number => (schema[name] as number | undefined) ?? otherwise;
  switch (schema['type']) {
    case 'null':
      return fc.constant(null);
    case 'boolean':
      return fc.boolean();
    case 'integer':
      return fc.integer({ min: number('minimum', -100), max: Math.min(400, number('maximum', 400)) });
    case 'number':
      return fc.double({ min: number('minimum', -10), max: Math.min(400, number('maximum', 10)), noNaN: true });
    case 'string':
      return textOf(schema['pattern'] as string | undefined, number('minLength', 0));
    case 'array':
      return fc.array(of(schema['items'] ?? {}), { minLength: number('minItems', 0), maxLength: 3 });
    case 'object':
      return objectOf(schema, of);
    default:
      return fc.jsonValue({ maxDepth: 2 });
  }
}

function textOf(pattern: string | undefined, minLength: number): fc.Arbitrary<string> {
  if (pattern !== undefined) return fc.stringMatching(new RegExp(pattern));
  return fc.string({ unit: 'binary', minLength, maxLength: minLength + 12 });
}

function objectOf(schema: JsonSchema, of: (value: unknown) => fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const properties = (schema['properties'] ?? {}) as Record<string, unknown>;
  const required = (schema['required'] ?? []) as string[];
  const named = fc.record(Object.fromEntries(Object.entries(properties).map(([name, value]) => [name, of(value)])), {
    requiredKeys: required,
  });
  const more = schema['additionalProperties'];
  if (typeof more !== 'object') return named;
  const names = schema['propertyNames'] === undefined ? fc.string({ maxLength: 5 }) : of(schema['propertyNames']);
  const rest = fc
    .array(fc.tuple(names, of(more)), { maxLength: 3 })
    .map((pairs) => Object.fromEntries(pairs) as object);
  return fc.tuple(named, rest).map(([one, other]) => ({ ...one, ...other }));
}
