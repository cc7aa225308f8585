/**
 * Which names the properties of an object have. Those that are listed become properties; the library knows others by a
 * pattern, or, beside properties, as any text. There a mark says that it is any other text.
 *
 *   { propertyNames: { enum: ['a', 'b'] }, additionalProperties: S }     -->   { properties: { a: S, b: S } }
 *   { propertyNames: { pattern: '^k' }, additionalProperties: S }        -->   { patternProperties: { '^k': S } }
 */
import { show } from '../util/checked.js';
import { withNameMark } from './grammar-text.js';
import { followableRules, isNothing, sayingOf, textRulesOf, type PatternOf, type Schema } from './json-schema-rules.js';
import { typesOf, type SchemaPlaces } from './json-schema-types.js';
import { refused, type TextRules } from './json-text-rules.js';
import { isObject } from './written-json.js';

export interface NamesContext {
  readonly places: SchemaPlaces;
  /** The schema in words that are followed. */
  follow(schema: unknown): unknown;
  /** The same by reference, for several places. */
  shared(schema: unknown): unknown;
  readonly patternOf: PatternOf;
  /** Of the automaton of texts. */
  numberOf(rules: TextRules): number;
  count(parts: number): void;
}

/** Names that may be; all where it says nothing. */
type Names =
  | { readonly kind: 'all' }
  | { readonly kind: 'listed'; readonly names: readonly string[] }
  /** `value` is the schema of what such names have; left open, that of other properties. */
  | { readonly kind: 'fitting'; readonly kinds: readonly Kind[] };

interface Kind {
  readonly rules: TextRules;
  readonly value?: unknown;
}

/** Each one is told apart from all others. */
const maxPatterns = 32;

/** Whether others than those that are listed come, by their schema: where nothing is said of them they do not. */
function mayCome(others: unknown): boolean {
  return others !== undefined && !isNothing(others);
}

const keywords = [
  'properties',
  'required',
  'additionalProperties',
  'unevaluatedProperties',
  'patternProperties',
  'propertyNames',
];

export class ObjectNames {
  constructor(private readonly context: NamesContext) {}

  /** What takes the place of the keywords that speak of names. Throws UsageError. */
  rulesOf(schema: Schema, path: string): Schema {
    if (!keywords.some((key) => key in schema)) return {};
    const without = Object.fromEntries(keywords.map((key) => [key, undefined]));
    const { additional, names } = this.#othersOf(schema, path);
    const all = (schema['properties'] ?? {}) as Schema;
    const given = Object.fromEntries(Object.entries(all).filter(([, one]) => !isNothing(one)));
    const properties = names.kind === 'listed' ? this.#listed(given, names.names, additional) : this.#followed(given);
    checkNames(Object.keys(properties), schema['required'], path);
    const isAlone = Object.keys({ ...all, ...properties }).length === 0;
    if (names.kind === 'fitting' && !isAlone) {
      throw refused(path, 'has rules for names beside properties', 'move the properties into an object of their own');
    }
    const rules = { ...without, properties: isAlone ? undefined : properties, required: schema['required'] };
    if (names.kind === 'fitting') {
      const some = names.kinds.filter(({ value = additional }) => mayCome(value));
      const followed = some.map((kind) => [
        this.context.patternOf(kind.rules),
        this.context.follow(kind.value ?? additional),
      ]);
      if (some.length > 0)
        return { ...without, patternProperties: Object.fromEntries(followed) as Schema, additionalProperties: false };
    }
    if (names.kind !== 'all' || !mayCome(additional)) {
      return { ...rules, additionalProperties: false };
    }
    const followed = this.context.follow(additional);
    if (isAlone) return { ...rules, additionalProperties: followed };
    const others = { path, patterns: [], least: 0, most: undefined, without: Object.keys(all) };
    return { ...rules, additionalProperties: withNameMark(this.context.numberOf(others), followed) };
  }

  /** Names of properties that are not listed, and the schema of their values. */
  #othersOf(schema: Schema, path: string): { additional: unknown; names: Names } {
    const { propertyNames, patternProperties } = schema;
    const additional = schema['additionalProperties'] ?? schema['unevaluatedProperties'];
    if (patternProperties === undefined) {
      return { additional, names: propertyNames === undefined ? { kind: 'all' } : this.#namesOf(propertyNames) };
    }
    const patterns = Object.keys(patternProperties as Schema);
    const isAlone = propertyNames === undefined && !mayCome(additional);
    if (patterns.length === 0 || !isAlone) {
      throw refused(path, 'has patternProperties without patterns or beside other names', 'leave the other names out');
    }
    if (patterns.length > maxPatterns)
      throw refused(path, `has patternProperties of more than ${maxPatterns} patterns`);
    const kinds = patterns.map((pattern): Kind => {
      const elsewhere = patterns.filter((other) => other !== pattern);
      const rules = { path, patterns: [pattern], least: 0, most: undefined, without: [], elsewhere };
      return { rules, value: (patternProperties as Schema)[pattern] };
    });
    return { additional, names: { kind: 'fitting', kinds } };
  }

  #namesOf(names: unknown): Names {
    if (isNothing(names)) return { kind: 'listed', names: [] };
    if (!isObject(names)) return { kind: 'all' };
    const path = this.context.places.pathOf(names);
    const inside = (one: unknown): Names => this.#namesOf(one);
    if (!typesOf(names['type']).has('string')) return { kind: 'listed', names: [] };
    if ('enum' in names || 'const' in names) {
      const { enum: values } = followableRules(names, path, this.context.patternOf);
      return { kind: 'listed', names: [...new Set((values as unknown[]).filter((one) => typeof one === 'string'))] };
    }
    const key = ['$ref', 'allOf', 'anyOf', 'oneOf'].find((one) => one in names);
    if (key === undefined) {
      const rules = textRulesOf(names, path);
      return rules === undefined ? { kind: 'all' } : { kind: 'fitting', kinds: [{ rules }] };
    }
    const other = sayingOf(names).find((one) => one !== key && one !== 'type');
    if (other !== undefined) throw refused(path, `has ${other} beside ${key}`);
    if (key === '$ref') return inside(this.context.places.targetOf(names));
    const choices = (names[key] as readonly unknown[]).map(inside);
    if (choices.length === 1) return choices[0]!;
    const listed = choices.flatMap((one) => (one.kind === 'listed' ? [one.names] : []));
    if (key === 'allOf' || listed.length < choices.length)
      throw refused(path, `has ${key} of names that are not listed`);
    return { kind: 'listed', names: [...new Set(listed.flat())] };
  }

  #followed(properties: Schema): Schema {
    return Object.fromEntries(Object.entries(properties).map(([name, one]) => [name, this.context.follow(one)]));
  }

  /** Properties that are listed, then others with the schema for those. */
  #listed(properties: Schema, names: readonly string[], additional: unknown): Schema {
    this.context.count(names.length);
    const given = Object.fromEntries(Object.entries(properties).filter(([name]) => names.includes(name)));
    const others = mayCome(additional) ? names.filter((name) => !Object.hasOwn(given, name)) : [];
    const value = others.length === 0 ? undefined : this.context.shared(additional);
    return { ...this.#followed(given), ...Object.fromEntries(others.map((name) => [name, value])) };
  }
}

function checkNames(names: readonly string[], required: unknown, path: string): void {
  const escaped = names.find((name) => JSON.stringify(name) !== `"${name}"`);
  if (escaped !== undefined)
    throw refused(path, `has the property ${JSON.stringify(escaped.slice(0, 100))}, whose name JSON has to escape`);
  if (required === undefined) return;
  if (!Array.isArray(required)) throw refused(path, 'has a required that is no list');
  const known = new Set<unknown>(names);
  const missing = required.find((name) => !known.has(name)) as unknown;
  if (missing !== undefined) throw refused(path, `requires ${show(missing)}, which is no property`);
}
