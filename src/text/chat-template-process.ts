/**
 * The process that renders chat templates, started by chat-template.ts. It gets jobs and gives answers over the channel
 * to its parent, and ends with it. The variables and functions are those that Hugging Face `transformers` gives a
 * template; like there, `range` is limited.
 */
import * as jinja from '@huggingface/jinja';
import { messageOf } from '../util/errors.js';
import { TimeLimit, TimeLimitError } from './time-limit.js';

/** Parent to child. */
export interface RenderJob {
  readonly template: string;
  /** The variables, as JSON. */
  readonly variables: string;
  /** Local time, as milliseconds since 1970-01-01 00:00 local time. */
  readonly localMs: number;
  readonly timeMs: number;
  readonly outputLength: number;
}

/** Child to parent. The message continues the sentence 'the chat template ...'. */
export type RenderAnswer =
  { readonly kind: 'text'; readonly text: string } | { readonly kind: 'failed'; readonly message: string };

/** What we use of the library, whose own declarations do not resolve under Node's module rules. */
interface Jinja {
  tokenize: (template: string, options: { lstrip_blocks: boolean; trim_blocks: boolean }) => unknown;
  parse: (tokens: unknown) => unknown;
  Environment: new () => { set(name: string, value: unknown): void };
  Interpreter: new (environment: unknown) => { run(program: unknown): { value: unknown } };
}

const maxRange = 100_000;
const months = 'January February March April May June July August September October November December'.split(' ');
const weekdays = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');

function answer(timeLimit: TimeLimit, job: RenderJob): RenderAnswer {
  try {
    const text = timeLimit.run(job.timeMs, () => render(job));
    if (text.length <= job.outputLength) return { kind: 'text', text };
    return { kind: 'failed', message: `made ${text.length} characters, at most ${job.outputLength} are allowed` };
  } catch (error) {
    const message = error instanceof TimeLimitError ? error.message : `failed: ${messageOf(error).slice(0, 2000)}`;
    return { kind: 'failed', message };
  }
}

function render(job: RenderJob): string {
  const { tokenize, parse, Environment, Interpreter } = jinja as Jinja;
  const program = parse(tokenize(job.template, { lstrip_blocks: true, trim_blocks: true }));
  const environment = new Environment();
  const globals = {
    true: true,
    false: false,
    none: null,
    True: true,
    False: false,
    None: null,
    range,
    raise_exception: (message: unknown) => {
      throw new Error(String(message));
    },
    strftime_now: (format: unknown) => strftime(new Date(job.localMs), String(format)),
  };
  const variables = JSON.parse(job.variables) as Record<string, unknown>;
  for (const [name, value] of Object.entries({ ...variables, ...globals })) environment.set(name, value);
  const result = new Interpreter(environment).run(program).value;
  if (typeof result !== 'string') throw new Error('its result is no text');
  return result;
}

/** Python's range(stop), range(start, stop), range(start, stop, step). */
function range(first: unknown, second?: unknown, third: unknown = 1): number[] {
  const [start, stop, step] = second === undefined ? [0, first, third] : [first, second, third];
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(stop) || !Number.isSafeInteger(step) || step === 0) {
    throw new Error('range() wants integers, and a step that is not 0');
  }
  const length = Math.max(0, Math.ceil((Number(stop) - Number(start)) / Number(step)));
  if (length > maxRange) throw new Error(`range() of ${length} numbers, at most ${maxRange} are allowed`);
  return Array.from({ length }, (_, i) => Number(start) + i * Number(step));
}

/** Python's strftime in the C locale; `local` holds local time in its UTC fields. Unknown directives stay as they are. */
function strftime(local: Date, format: string): string {
  const two = (value: number): string => String(value).padStart(2, '0');
  const month = months[local.getUTCMonth()] ?? '';
  const weekday = weekdays[local.getUTCDay()] ?? '';
  const yearStart = Date.UTC(local.getUTCFullYear(), 0, 1);
  const directives: Readonly<Record<string, string>> = {
    Y: String(local.getUTCFullYear()),
    y: two(local.getUTCFullYear() % 100),
    m: two(local.getUTCMonth() + 1),
    d: two(local.getUTCDate()),
    j: String(Math.floor((local.getTime() - yearStart) / 86_400_000) + 1).padStart(3, '0'),
    H: two(local.getUTCHours()),
    I: two(((local.getUTCHours() + 11) % 12) + 1),
    M: two(local.getUTCMinutes()),
    S: two(local.getUTCSeconds()),
    p: local.getUTCHours() < 12 ? 'AM' : 'PM',
    B: month,
    b: month.slice(0, 3),
    A: weekday,
    a: weekday.slice(0, 3),
    '%': '%',
  };
  return format.replaceAll(/%([A-Za-z%])/g, (directive, letter: string) => directives[letter] ?? directive);
}

const timeLimit = new TimeLimit();
process.on('message', (job) => process.send?.(answer(timeLimit, job as RenderJob)));
process.on('disconnect', () => process.exit());
// Ctrl+C in a terminal reaches the whole group; whether this process ends is for its parent to decide.
process.on('SIGINT', () => undefined);
process.send?.('ready');
