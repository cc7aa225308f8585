/**
 * Formats of texts as patterns. Every text of a pattern has the format by the document named, and by stricter readers of it;
 * rare ones that have it, too (addresses in quotes, leap seconds, versions without a meaning), are left out.
 */

const hour = String.raw`(?:[01]\d|2[0-3])`;
const clock = String.raw`${hour}:[0-5]\d:[0-5]\d(?:\.\d{1,6})?(?:Z|[+-]${hour}:[0-5]\d)`;
const year = String.raw`(?:\d{3}[1-9]|\d\d[1-9]\d|\d[1-9]\d\d|[1-9]\d{3})`;
const leapYear = String.raw`(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)`;
const days31 = String.raw`(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])`;
const days30 = String.raw`(?:0[469]|11)-(?:0[1-9]|[12]\d|30)`;
const days28 = String.raw`02-(?:0[1-9]|1\d|2[0-8])`;
const day = `(?:${year}-(?:${days31}|${days30}|${days28})|${leapYear}-02-29)`;

const minutes = String.raw`\d{1,6}M(?:\d{1,6}S)?`;
const hours = String.raw`\d{1,6}H(?:${minutes})?`;
const time = String.raw`T(?:${hours}|${minutes}|\d{1,6}S)`;
const months = String.raw`\d{1,6}M(?:\d{1,6}D)?`;
const years = String.raw`\d{1,6}Y(?:${months})?`;
const period = String.raw`P(?:(?:${years}|${months}|\d{1,6}D)(?:${time})?|${time}|\d{1,6}W)`;

/** At most 61 characters, so that no label has more than 63. */
const labels = String.raw`[a-z\d](?:[.-]?[a-z\d]){0,30}`;
const host = String.raw`(?:${labels}\.)?[a-z](?:-?[a-z\d]){0,30}`;

const octet = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
const group = String.raw`[\da-fA-F]{1,4}`;
/** `::` in the place of two groups or more, after as many as `i`; or no `::`. */
const shortened = Array.from({ length: 7 }, (_, i) => {
  const before = i === 0 ? ':' : `(?:${group}:){${i}}`;
  return i === 6 ? `${before}:` : `${before}(?::|(?::${group}){1,${6 - i}})`;
});
const groups = [`(?:${group}:){7}${group}`, ...shortened].join('|');

const character = String.raw`(?:[\w.~!$&'()*+,;=@-]|%[\dA-F]{2})`;
const characters = `(?:${character}|[:/?])*`;
/** Labels begin with a letter, perhaps after one or two digits: so the last one is no number. */
const letter = String.raw`(?:[1-9]\d?)?[a-z]`;
const authority = String.raw`${letter}(?:-?[a-z\d]|\.${letter})*(?::[1-9]\d{0,3})?`;
/** As few parts that repeat as there can be: an automaton of texts of some length stays small. */
const uri = String.raw`[a-z][a-z\d+.-]{0,15}://${authority}(?:[/?]${characters})?(?:#${characters})?`;
const variable = String.raw`\w+`;
const pointer = '(?:/(?:[^/~]|~[01])*)*';

const patterns: ReadonlyMap<string, string> = new Map([
  // RFC 3339, the years 1 to 9999.
  ['date', day],
  ['time', clock],
  ['date-time', `${day}T${clock}`],
  ['duration', period],
  // RFC 5321, 1123.
  ['email', String.raw`[\w+-](?:\.?[\w+-]){0,31}@${labels}\.[a-z]{2,18}`],
  ['hostname', host],
  // RFC 2673, 4291.
  ['ipv4', String.raw`(?:${octet}\.){3}${octet}`],
  ['ipv6', groups],
  // RFC 3986 with a host, and 6570.
  ['uri', uri],
  ['uri-reference', `(?:${uri}|(?:(?:/?${character}|\\?)${characters})?(?:#${characters})?)`],
  ['uri-template', String.raw`(?:[\w.~!$&()*+,;=@:/?#-]|%[\dA-F]{2}|\{[+#./;?&]?${variable}(?:,${variable})*\})*`],
  // RFC 6901.
  ['json-pointer', pointer],
  ['relative-json-pointer', `(?:0|[1-9]\\d{0,8})(?:#|${pointer})`],
  // OpenAPI's name of base64, RFC 4648.
  ['byte', String.raw`(?:[A-Za-z\d+/]{4})*(?:[A-Za-z\d+/][AQgw]==|[A-Za-z\d+/]{2}[AEIMQUYcgkosw048]=)?`],
  // RFC 9562.
  ['uuid', String.raw`[\da-f]{8}-[\da-f]{4}-[1-8][\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}`],
]);

/** Of any text: they say how it is shown or what it is for (OpenAPI, Pydantic). */
const anyText: ReadonlySet<string> = new Set(['password', 'binary', 'path', 'file-path', 'directory-path']);

export function isOfAnyText(format: string): boolean {
  return anyText.has(format);
}

/** Of the whole text; undefined for a format that is not known. */
export function formatPattern(format: string): string | undefined {
  return patterns.get(format);
}
