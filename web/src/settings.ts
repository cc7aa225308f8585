/** Sampling controls: what is left empty is left to the server, which does as the checkpoint suggests. */
import { h } from './dom.js';

interface Setting {
  readonly name: string;
  readonly label: string;
  readonly min: number;
  readonly max: number;
  readonly step: number | 'any';
}

const settings: readonly Setting[] = [
  { name: 'temperature', label: 'Temperature', min: 0, max: 2, step: 'any' },
  { name: 'top_p', label: 'Top p', min: 0, max: 1, step: 'any' },
  { name: 'top_k', label: 'Top k', min: 0, max: 1000, step: 1 },
  { name: 'min_p', label: 'Min p', min: 0, max: 1, step: 'any' },
  { name: 'repetition_penalty', label: 'Repetition penalty', min: 0.1, max: 2, step: 'any' },
  { name: 'presence_penalty', label: 'Presence penalty', min: -2, max: 2, step: 'any' },
  { name: 'frequency_penalty', label: 'Frequency penalty', min: -2, max: 2, step: 'any' },
  { name: 'max_tokens', label: 'Most tokens', min: 1, max: 100_000, step: 1 },
  { name: 'seed', label: 'Seed', min: 0, max: 2 ** 31, step: 1 },
];

export class Settings {
  readonly #inputs = new Map<string, HTMLInputElement>();

  constructor(parent: HTMLElement) {
    for (const { name, label, min, max, step } of settings) {
      const input = h('input', { type: 'number', name, min, max, step, placeholder: 'default' }) as HTMLInputElement;
      this.#inputs.set(name, input);
      parent.append(h('label', {}, label, input));
    }
  }

  /** Fields of a request. */
  get values(): Record<string, number> {
    const given = [...this.#inputs].filter(([, { value }]) => value !== '');
    return Object.fromEntries(given.map(([name, { value }]) => [name, Number(value)]));
  }
}
