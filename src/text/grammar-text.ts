/**
 * What the library cannot be told in a schema is put into the grammar that it makes of one. In the schema a mark stands in
 * its place: a pattern with control characters, which no pattern of a request can hold.
 *
 *   "\"" "\x01" [0-9] "\x02" "\""   -->   [0-9]                   what is no text, but fits a pattern
 *   "\"" "\x03" "1" "\x04" "\""     -->   "\"" kloop_text_1_0     a text that an automaton describes
 *   basic_string ws ":" ws rest     -->   "\"" kloop_text_1_0 ws ":" ws rest, where `rest` has the mark of text 1
 *
 * And escapes that it writes are replaced where they are read as something else, or are of no use:
 *
 *   "Espa\xf1a"                     -->   "Espa\u00f1a"          \xf1a would be read as one character
 *   "\"and\\/or\""                 -->   "\"and/or\""          JSON need not escape a slash, and models do not
 */

/** The schema of what is no text, but fits a pattern. */
export function unquoted(pattern: string): object {
  return { type: 'string', pattern: `^\\x01(?:${pattern})\\x02$` };
}

/** The pattern of a text that a rule of the grammar describes: the one of this number. */
export function textMark(number: number): string {
  return `^\\x03(?:${number})\\x04$`;
}

/** A schema for the values of properties that have no name in it: their names are texts of this number. */
export function withNameMark(number: number, schema: unknown): object {
  return { anyOf: [schema, { type: 'string', pattern: `^\\x05(?:${number})\\x06$` }] };
}

/** The rule of a text and the quote behind it begins with this. */
export function textRule(number: number): string {
  return `kloop_text_${number}`;
}

/** A grammar of the library as it is meant, without marks; it needs the rules of its texts. */
export function finished(grammar: string): string {
  return withoutMarks(grammar).replaceAll(classesAndTexts, (part) =>
    part.startsWith('[') ? part : part.replaceAll(escapes, plainEscape),
  );
}

const classesAndTexts = /\[(?:[^\]\\]|\\.)*\]|"(?:[^"\\]|\\.)*"/g;
/** Of the grammar, or of JSON within it. */
const escapes = /\\x([\da-f]{2})|\\\\(\\.|.)|\\./g;

function plainEscape(escape: string, code: string | undefined, escaped: string | undefined): string {
  if (code !== undefined) return `\\u00${code}`;
  return escaped === '/' ? '/' : escape;
}

function withoutMarks(grammar: string): string {
  const unmarked = withoutNameMarks(grammar).replaceAll(`"\\"" "\\x01" `, '').replaceAll(` "\\x02" "\\""`, '');
  return unmarked.replace(/"\\"" "\\x03" ((?:"\d" )+)"\\x04" "\\""/g, (_, digits: string) => beginOf(numberOf(digits)));
}

/** A mark has a rule of its own, which another one names, which is the second alternative of the values' rule. */
function withoutNameMarks(grammar: string): string {
  let text = grammar;
  for (const [, mark, digits] of grammar.matchAll(/^(\S+) ::= \(\("\\"" "\\x05" ((?:"\d" )+)"\\x06" "\\""\)\)$/gm)) {
    const number = numberOf(digits!);
    for (const [, alternative] of grammar.matchAll(new RegExp(`^(\\S+) ::= \\(\\(${mark!}\\)\\)$`, 'gm'))) {
      const choice = new RegExp(`^(\\S+)( ::= .*) \\| \\(${alternative!}\\)\\)$`, 'gm');
      for (const [, values] of grammar.matchAll(choice)) {
        const named = new RegExp(`basic_string ((?:\\S+ )?":" (?:\\S+ )?${values!})(?= |\\)|$)`, 'gm');
        text = text.replace(named, `${beginOf(number)} $1`);
      }
      text = text.replace(choice, '$1$2)');
    }
  }
  return text;
}

function beginOf(number: number): string {
  return `"\\"" ${textRule(number)}_0`;
}

/** `"1" "2" ` is 12. */
function numberOf(digits: string): number {
  return Number(digits.replace(/\D/g, ''));
}
