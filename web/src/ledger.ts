/** What a request costs, as the kernels count it: measured, while it runs. */
import { counters, type Counters, type Inspection } from './api.js';
import { h, svg } from './dom.js';
import { bytes, digits, percent } from './units.js';

/** Between two looks at the counters, in milliseconds. */
const interval = 150;
/** More strokes than this are a surface. */
const mostStrokes = 1000;

interface Sample {
  readonly ms: number;
  readonly counters: Counters;
}

export class Ledger {
  readonly #samples: Sample[] = [];
  #timer: number | undefined;
  #start = 0;

  constructor(
    private readonly view: HTMLElement,
    private readonly inspection: Inspection,
  ) {
    this.#draw();
  }

  /** From here on everything that the engine does is counted. */
  async begin(): Promise<void> {
    this.#samples.length = 0;
    this.#start = performance.now();
    await this.#sample();
    const next = (): void => {
      this.#timer = window.setTimeout(() => void this.#sample().then(next, next), interval);
    };
    next();
  }

  async end(): Promise<void> {
    window.clearTimeout(this.#timer);
    await this.#sample();
    window.clearTimeout(this.#timer);
  }

  async #sample(): Promise<void> {
    const seen = await counters(this.inspection.model);
    this.#samples.push({ ms: performance.now() - this.#start, counters: seen });
    this.#draw();
  }

  #draw(): void {
    const { schedule, backend, threads } = this.inspection;
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const made = first !== undefined && last !== undefined ? last.counters.tokens - first.counters.tokens : 0;
    const title = `Measured: this request, schedule ${schedule}, ${backend}, ${threads} ${threads === 1 ? 'thread' : 'threads'}`;
    if (first === undefined || last === undefined || made === 0) {
      this.view.replaceChildren(
        h('h3', {}, title),
        h('p', { class: 'note' }, 'Ask for something, and its kernel calls are counted here.'),
      );
      return;
    }
    this.view.replaceChildren(h('h3', {}, title), this.#strip(), this.#table(first, last, made));
  }

  #table(first: Sample, last: Sample, made: number): HTMLElement {
    const seconds = Math.max(0.001, (last.ms - first.ms) / 1000);
    const per = (pick: (counters: Counters) => number): number => (pick(last.counters) - pick(first.counters)) / made;
    const rate = (per(({ bytes_read }) => bytes_read) * made) / seconds;
    const { read_bandwidth: bandwidth } = this.inspection;
    const share = bandwidth === null ? '' : `, ${percent(rate / bandwidth)} of the read bandwidth`;
    const rows: readonly (readonly [string, string])[] = [
      ['Tokens', `${digits(made)} in ${digits(seconds)} s, ${digits(made / seconds)} per second`],
      ['Kernel calls per token', digits(per(({ kernel_calls }) => kernel_calls))],
      ['Barriers per token', digits(per(({ barriers }) => barriers))],
      ['Bytes read per token', bytes(per(({ bytes_read }) => bytes_read))],
      ['Read rate', `${bytes(rate)}/s${share}`],
    ];
    const body = rows.map(([name, value]) => h('tr', {}, h('th', { scope: 'row' }, name), h('td', {}, value)));
    return h('table', {}, h('tbody', {}, ...body));
  }

  /** A stroke for every kernel call; those between two looks are spread evenly. */
  #strip(): HTMLElement {
    const total = Math.max(1, this.#samples.at(-1)?.ms ?? 1);
    let path = '';
    let count = 0;
    this.#samples.forEach(({ ms, counters: seen }, i) => {
      const before = this.#samples[i - 1];
      if (before === undefined) return;
      const calls = seen.kernel_calls - before.counters.kernel_calls;
      count += calls;
      const strokes = Math.min(calls, Math.ceil((mostStrokes * (ms - before.ms)) / total));
      for (let stroke = 0; stroke < strokes; stroke++) {
        const at = before.ms + ((ms - before.ms) * (stroke + 0.5)) / strokes;
        path += `M${((at / total) * 1000).toFixed(1)} 2v16`;
      }
    });
    const label = `${count} kernel calls in ${digits(total / 1000)} seconds`;
    const strip = svg(
      'svg',
      { viewBox: '0 0 1000 20', preserveAspectRatio: 'none', role: 'img', 'aria-label': label, class: 'strip' },
      svg('rect', { class: 'body', x: 0, y: 4, width: 1000, height: 12 }),
      svg('path', { class: 'stroke', d: path }),
    );
    const caption = h(
      'figcaption',
      {},
      `${label}; a stroke is a call, spread evenly between two looks at the counters`,
    );
    return h('figure', {}, strip, caption);
  }
}
