/**
 * A schema in words that the library follows exactly. What a `$ref` leads to becomes a definition, once for every set of
 * types that is asked of it; annotations and what nothing leads to are left out.
 *
 *   { type: 'object', anyOf: [{ $ref: '#/$defs/Pet' }, { type: 'null' }] }   -->   { anyOf: [{ $ref: '#/$defs/0' }] }
 */
import { UsageError } from '../util/errors.js';
import { textMark } from './grammar-text.js';
import { MergedObjects } from './json-schema-merged.js';
import { ObjectNames } from './json-schema-names.js';
import {
  followableRules,
  holdsChoices,
  isNothing,
  keywordsFor,
  sayingOf,
  textRulesOf,
  type Schema,
} from './json-schema-rules.js';
import {
  allTypes,
  common,
  isWithin,
  typeNames,
  typesOf,
  ValueTypes,
  type SchemaPlaces,
  type Types,
} from './json-schema-types.js';
import { onePattern, refused, type TextRules } from './json-text-rules.js';
import { isObject } from './written-json.js';

export interface FollowableSchema {
  readonly schema: unknown;
  /** What marks in the schema stand for (grammar-text.ts). */
  readonly texts: readonly TextRules[];
}

const severalHint = 'plain objects are merged; others become one schema';
/** Each says what a value is by itself. */
const whole = ['$ref', ...holdsChoices];
const ofTexts = new Set(['type', 'minLength', 'maxLength', 'pattern', 'format']);

export class SchemaRewriter {
  /** The path of the schema that each one of the new ones is made of. */
  readonly origins = new Map<object, string>();
  readonly #texts = new Map<string, TextRules>();
  readonly #types: ValueTypes;
  readonly #names: ObjectNames;
  readonly #merged: MergedObjects;
  readonly #definitions: { readonly schema: Schema; readonly types: Types }[] = [];
  /** Numbers of definitions. */
  readonly #numbers = new Map<Schema, Map<string, number>>();
  #parts = 0;

  constructor(
    private readonly root: unknown,
    private readonly places: SchemaPlaces,
    private readonly maxParts: number,
  ) {
    this.#types = new ValueTypes(places);
    this.#merged = new MergedObjects(places);
    this.#names = new ObjectNames({
      ...{ follow: (schema) => this.#follow(schema), shared: (schema) => this.#shared(schema, allTypes) },
      ...{ patternOf: (rules) => this.#patternOf(rules), numberOf: (rules) => this.#numberOf(rules) },
      ...{ places, count: (parts) => this.#count(parts) },
    });
  }

  rewrite(): FollowableSchema {
    const root = this.#follow(this.root);
    const definitions: Record<string, unknown> = {};
    for (const [i, { schema, types }] of this.#definitions.entries()) definitions[i] = this.#follow(schema, types);
    if (isObject(root) && this.#definitions.length > 0) Object.assign(root, { $defs: definitions });
    return { schema: root, texts: [...this.#texts.values()] };
  }

  /** Of values of these types; there are some. */
  #follow(schema: unknown, types = allTypes): unknown {
    if (isNothing(schema)) return false;
    if (!isObject(schema)) return schema;
    this.#count(1);
    const path = this.places.pathOf(schema);
    const followed = schema['nullable'] === true ? this.#orNull(schema, path, types) : this.#whole(schema, path, types);
    this.origins.set(followed, path);
    return followed;
  }

  /** OpenAPI 3.0 says so beside anything. */
  #orNull(given: Schema, path: string, types: Types): Schema {
    const schema = this.places.put({ ...given, nullable: false }, path);
    const isOther = common(this.#types.of(schema), types).size > 0;
    const others = isOther ? [this.#follow(schema, types)] : [];
    return { anyOf: [...others, ...(types.has('null') ? [{ type: 'null' }] : [])] };
  }

  #whole(schema: Schema, path: string, types: Types): Schema {
    const ofValue = 'enum' in schema || 'const' in schema;
    const key = ofValue ? undefined : whole.find((one) => one in schema);
    return key === undefined ? this.#ofOneKind(schema, path, types) : this.#ofOthers(schema, key, path, types);
  }

  #ofOneKind(given: Schema, path: string, types: Types): Schema {
    const own = this.#types.of(given);
    const left = common(own, types);
    const schema = isWithin(own, types) ? given : { ...keywordsFor(left, given), type: typeNames(left) };
    const kept = Object.fromEntries(sayingOf(schema).map((key) => [key, schema[key]]));
    const rules = followableRules(schema, path, (text) => this.#patternOf(text));
    return { ...kept, ...this.#names.rulesOf(schema, path), ...this.#itemsOf(schema), ...rules };
  }

  #itemsOf({ items, prefixItems, additionalItems, unevaluatedItems }: Schema): Schema {
    const followed = (one: unknown): unknown => (one === undefined ? undefined : this.#follow(one));
    // Before 2020 the items of a tuple were a list in `items`.
    const [first, rest] = Array.isArray(items) ? [items, additionalItems] : [prefixItems, items];
    return {
      ...{ prefixItems: (first as unknown[] | undefined)?.map(followed), items: followed(rest) },
      ...{ additionalItems: undefined, unevaluatedItems: followed(unevaluatedItems) },
    };
  }

  /** What says by other schemas what it is. */
  #ofOthers(schema: Schema, key: string, path: string, given: Types): Schema {
    const types = common(given, typesOf(schema['type']));
    if (key === 'allOf' && isOfTexts(schema)) return this.#severalTexts(schema, path);
    const merged = key === 'allOf' ? this.#merged.of(schema) : undefined;
    if (merged !== undefined) return this.#shared(merged, types);
    const other = sayingOf(schema).find((one) => one !== key && one !== 'type');
    if (other !== undefined)
      throw refused(path, `has ${other} beside ${key}`, 'move one of them into a schema of its own');
    if (common(this.#types.of(schema), types).size === 0) {
      throw refused(path, `has no value that fits ${'type' in schema ? 'both type and' : 'its'} ${key}`);
    }
    if (key === '$ref') return this.#shared(this.places.targetOf(schema), types);
    const schemas = schema[key] as readonly unknown[];
    if (key === 'allOf' && schemas.length > 1) throw refused(path, 'has allOf with several schemas', severalHint);
    const fitting = schemas.filter((one) => common(this.#types.of(one), types).size > 0);
    return { [key]: fitting.map((one) => this.#follow(one, types)) };
  }

  /** Rules of texts, and more of them in `allOf`. */
  #severalTexts(schema: Schema, path: string): Schema {
    const parts = [schema, ...(schema['allOf'] as Schema[])];
    const types = parts.map((part) => typesOf(part['type'])).reduce(common);
    if (typeNames(types).join() !== 'string')
      throw refused(path, 'has allOf with several schemas', "give it the type 'string'");
    const hasPattern = parts.some((part) => 'pattern' in part);
    const rules = parts.flatMap((part) => textRulesOf(part, path, hasPattern) ?? []);
    return { type: 'string', ...(rules.length === 0 ? {} : { pattern: this.#patternOf(together(rules, path)) }) };
  }

  /** A reference to what may be needed in several places. */
  #shared(target: unknown, types: Types): Schema {
    if (!isObject(target)) return types === allTypes ? {} : { type: typeNames(types) };
    const isFree = isWithin(this.#types.of(target), types);
    if (isFree && target === this.root) return { $ref: '#' };
    const key = isFree ? '' : [...types].join(' ');
    const numbers = this.#numbers.get(target) ?? new Map<string, number>();
    this.#numbers.set(target, numbers);
    const number = numbers.get(key) ?? this.#definitions.push({ schema: target, types: isFree ? allTypes : types }) - 1;
    numbers.set(key, number);
    return { $ref: `#/$defs/${number}` };
  }

  #patternOf(rules: TextRules): string {
    return onePattern(rules) ?? textMark(this.#numberOf(rules));
  }

  #numberOf(rules: TextRules): number {
    const key = JSON.stringify({ ...rules, path: '' });
    if (!this.#texts.has(key)) this.#texts.set(key, rules);
    return [...this.#texts.keys()].indexOf(key);
  }

  #count(parts: number): void {
    this.#parts += parts;
    if (this.#parts > this.maxParts) throw new UsageError(`the schema has more than ${this.maxParts} parts`);
  }
}

function together(rules: readonly TextRules[], path: string): TextRules {
  const most = Math.min(...rules.map((one) => one.most ?? Infinity));
  return {
    ...{ path, patterns: [...new Set(rules.flatMap((one) => one.patterns))] },
    ...{ least: Math.max(...rules.map((one) => one.least)), most: most === Infinity ? undefined : most, without: [] },
  };
}

/** Whether it and all in its `allOf` speak of texts only. */
function isOfTexts(schema: Schema): boolean {
  const others = schema['allOf'] as readonly unknown[];
  const saysMore = (one: Schema): boolean => sayingOf(one).some((key) => !ofTexts.has(key) && key !== 'allOf');
  const isAlone = others.length === 1 && sayingOf(schema).every((key) => key === 'allOf' || key === 'type');
  return !isAlone && !saysMore(schema) && others.every((one) => isObject(one) && !saysMore(one) && !('allOf' in one));
}
