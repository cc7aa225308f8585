/**
 * What one schema says of values, integers and texts, in words that the library follows exactly. The library takes one of
 * `$ref`, `const`, `enum`, ... and leaves out what stands beside it, takes a schema without a type for any value, and of
 * ranges it knows only those of integers that have both ends.
 *
 *   { type: 'integer', exclusiveMinimum: 2.5 }      -->   { type: 'integer', minimum: 3, maximum: 2^53 - 1 }
 *   { type: 'number', minimum: 0, maximum: 1 }      -->   { anyOf: [{ type: 'string', pattern: ... }] }, without its quotes
 *   { enum: ['a', 1], type: 'string', title: ... }  -->   { enum: ['a'], title: ... }
 */
import { show } from '../util/checked.js';
import { unquoted } from './grammar-text.js';
import { isInside, numberPattern, type NumberRange } from './json-number-range.js';
import { formatPattern, isOfAnyText } from './json-string-formats.js';
import { refused, type TextRules } from './json-text-rules.js';
import { isObject } from './written-json.js';

export type Schema = Readonly<Record<string, unknown>>;

/** `discriminator` (OpenAPI) says by which property the schemas beside it are told apart, which they say themselves. */
export const annotations =
  'title description default examples example $schema $id $comment deprecated readOnly writeOnly contentMediaType contentEncoding discriminator'.split(
    ' ',
  );
/** Keywords that hold schemas: one, lists, and maps of them. */
export const holdsOne =
  'items additionalItems additionalProperties propertyNames unevaluatedProperties unevaluatedItems'.split(' ');
/** Of the same value. */
export const holdsChoices = ['anyOf', 'oneOf', 'allOf'];
export const holdsList = [...holdsChoices, 'prefixItems'];
export const holdsMap = ['properties', 'patternProperties', '$defs', 'definitions'];

const bounds = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum'];
const lengths = ['minLength', 'maxLength'];
/** Keywords that say something of values of one type only. */
const ofType: Readonly<Record<string, readonly string[]>> = {
  number: bounds,
  string: [...lengths, 'pattern', 'format'],
  array: ['items', 'additionalItems', 'prefixItems', 'unevaluatedItems', 'minItems', 'maxItems'],
  object:
    'properties required additionalProperties unevaluatedProperties patternProperties propertyNames minProperties maxProperties'.split(
      ' ',
    ),
};
/** What may stand beside anything: it says nothing of the value. */
const silent = new Set([...annotations, '$defs', 'definitions']);

/** The pattern of texts that fit; it may stand for an automaton. */
export type PatternOf = (rules: TextRules) => string;

/** The keywords to change; those that are undefined are to be left out. Throws UsageError for what cannot be followed. */
export function followableRules(schema: Schema, path: string, patternOf: PatternOf): Schema {
  if ('const' in schema || 'enum' in schema) return valueRules(schema, path);
  const type = schema['type'] ?? typeOf(schema, path);
  if (type === undefined) return {};
  const types: readonly unknown[] = Array.isArray(type) ? type : [type];
  return {
    ...{ type, ...numberRules(schema, types, path, patternOf) },
    ...(types.includes('string') ? textRules(schema, path, patternOf) : {}),
  };
}

/** The keywords that say something of the value. */
export function sayingOf(schema: Schema): string[] {
  return Object.keys(schema).filter((key) => !silent.has(key) && !key.startsWith('x-') && !saysNothing(schema, key));
}

/** Whether the keyword asks for nothing with the value that it has. */
export function saysNothing(schema: Schema, key: string): boolean {
  return (key === 'uniqueItems' || key === 'nullable') && schema[key] === false;
}

/** No value fits it: `false`, or `{ not: {} }` in the words of older libraries. */
export function isNothing(schema: unknown): boolean {
  if (!isObject(schema) || sayingOf(schema).join() !== 'not') return schema === false;
  const { not } = schema;
  return not === true || (isObject(not) && Object.keys(not).length === 0);
}

/** Without keywords that say something of values of other types only. */
export function keywordsFor(types: ReadonlySet<string>, schema: Schema): Schema {
  const isMeant = (type: string): boolean => types.has(type === 'number' ? 'integer' : type);
  const others = new Set(Object.entries(ofType).flatMap(([type, keys]) => (isMeant(type) ? [] : keys)));
  return Object.fromEntries(Object.entries(schema).filter(([key]) => !others.has(key)));
}

/** The type that the keywords are about; values of other types would fit, too. */
export function typeOf(schema: Schema, path: string): string | undefined {
  const saying = sayingOf(schema);
  const types = Object.keys(ofType).filter((type) => ofType[type]!.some((key) => saying.includes(key)));
  if (types.length > 1) throw refused(path, 'has no type and keywords of several', 'say the type');
  return types[0];
}

/** Those values of `const` and `enum` that fit what stands beside them. */
function valueRules(schema: Schema, path: string): Schema {
  const besides = ['const', 'enum', 'type', ...lengths, ...bounds];
  const other = sayingOf(schema).find((key) => !besides.includes(key));
  if (other !== undefined) throw refused(path, `has ${other} beside enum or const`, 'leave one of them out');
  const { const: only } = schema;
  const given = valuesOf(schema, path);
  const same = (value: unknown): boolean => !('const' in schema) || JSON.stringify(value) === JSON.stringify(only);
  const range = rangeOf(schema, path);
  const [shortest, longest] = lengthsOf(schema, path);
  const fits = (value: unknown): boolean => {
    if (!same(value) || !hasType(value, schema['type'], path)) return false;
    if (typeof value === 'string') {
      const { length } = Array.from(value);
      return length >= shortest && length <= (longest ?? Infinity);
    }
    return typeof value !== 'number' || isInside(value, range);
  };
  const fitting = given.filter(fits);
  if (fitting.length === 0) throw refused(path, 'has no value that fits all it says');
  const without = Object.fromEntries(besides.map((key) => [key, undefined]));
  return { ...without, enum: fitting };
}

/** The values of `enum`, or that of `const`. */
export function valuesOf(schema: Schema, path: string): readonly unknown[] {
  if (!('enum' in schema)) return [schema['const']];
  if (!Array.isArray(schema['enum'])) throw refused(path, 'has an enum that is no list');
  return schema['enum'] as unknown[];
}

function hasType(value: unknown, type: unknown, path: string): boolean {
  if (type === undefined) return true;
  if (Array.isArray(type)) return type.some((one) => hasType(value, one, path));
  switch (type) {
    case 'integer':
      return Number.isInteger(value);
    case 'null':
      return value === null;
    case 'array':
      return Array.isArray(value);
    case 'object':
      return isObject(value);
    case 'number':
    case 'string':
    case 'boolean':
      return typeof value === type;
    default:
      throw refused(path, `has the type ${show(type)}`);
  }
}

function rangeOf(schema: Schema, path: string): NumberRange {
  const bound = (key: string, none: number): number => {
    const value = schema[key] ?? none;
    if (typeof value !== 'number') throw refused(path, `has ${key} that is no number`);
    return value;
  };
  return {
    ...{ min: bound('minimum', -Infinity), max: bound('maximum', Infinity) },
    ...{ above: bound('exclusiveMinimum', -Infinity), below: bound('exclusiveMaximum', Infinity) },
  };
}

/** Bounds of integers as the first and the last of them; those of other numbers as a pattern of a text without quotes. */
function numberRules(schema: Schema, types: readonly unknown[], path: string, patternOf: PatternOf): Schema {
  if (!bounds.some((key) => key in schema)) return {};
  const range = rangeOf(schema, path);
  if (types.includes('number')) {
    const pattern = numberPattern(range);
    if (pattern === undefined) throw refused(path, 'has bounds without a number of at most 15 digits between them');
    return { type: undefined, anyOf: [unquoted(pattern), ...otherTypes(schema, types, path, patternOf)] };
  }
  if (!types.includes('integer')) return {};
  const { min, max, above, below } = range;
  const largest = Number.MAX_SAFE_INTEGER;
  const minimum = Math.max(-largest, Math.ceil(min), Math.floor(above) + 1);
  const maximum = Math.min(largest, Math.floor(max), Math.ceil(below) - 1);
  if (minimum > maximum) throw refused(path, 'has bounds without an integer of less than 2^53 between them');
  return { minimum, maximum, exclusiveMinimum: undefined, exclusiveMaximum: undefined };
}

/** What a value may be that is no number. */
function otherTypes(schema: Schema, types: readonly unknown[], path: string, patternOf: PatternOf): Schema[] {
  const others = types.filter((type) => type !== 'number' && type !== 'integer');
  const complex = others.find((type) => type === 'array' || type === 'object');
  if (complex !== undefined) throw refused(path, 'has bounds of numbers and may be a list or an object', 'use anyOf');
  return others.length === 0
    ? []
    : [{ type: others, ...(others.includes('string') ? textRules(schema, path, patternOf) : {}) }];
}

function lengthsOf({ minLength, maxLength: max }: Schema, path: string): [min: number, max: number | undefined] {
  const min = minLength ?? 0;
  const fits = isCount(min) && (max === undefined || (isCount(max) && max >= min));
  if (!fits) throw refused(path, 'has lengths that are none');
  return [min, max];
}

/** The rules of a text as one pattern. */
function textRules(schema: Schema, path: string, patternOf: PatternOf): Schema {
  const rules = textRulesOf(schema, path);
  const without = Object.fromEntries([...lengths, 'format'].map((key) => [key, undefined]));
  return rules === undefined ? without : { ...without, pattern: patternOf(rules) };
}

/**
 * What a schema says of texts; undefined where that is nothing. Beside a pattern, a format that is not known says nothing:
 * its name stands for the pattern.
 */
export function textRulesOf(schema: Schema, path: string, hasPattern = 'pattern' in schema): TextRules | undefined {
  const { pattern, format: given } = schema;
  const format = typeof given === 'string' && isOfAnyText(given) ? undefined : given;
  const [least, most] = lengthsOf(schema, path);
  if (pattern !== undefined && typeof pattern !== 'string') throw refused(path, 'has a pattern that is no text');
  const known = typeof format === 'string' ? formatPattern(format) : undefined;
  if (format !== undefined && known === undefined && !hasPattern) {
    throw refused(path, `has the format ${show(format)}`, 'give a pattern');
  }
  const patterns = [pattern, known].filter((one) => one !== undefined);
  if (patterns.length === 0 && least === 0 && most === undefined) return undefined;
  return { path, patterns, least, most, without: [] };
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
