import { describe, expect, it, vi } from 'vitest';
import { ProgressBar } from './progress.js';

function fake(isTTY: boolean): { bar: ProgressBar; at: (ms: number) => void; text: () => string } {
  let text = '';
  let nowMs = 0;
  const stream = { isTTY, columns: 60, write: (piece: string) => (text += piece) };
  const bar = new ProgressBar({ stream, now: () => nowMs });
  return { bar, at: (ms) => (nowMs = ms), text: () => text };
}

describe('ProgressBar', () => {
  it('shows nothing for short work', () => {
    const { bar, at, text } = fake(true);
    bar.update('pack', 0, 10, 'steps');
    at(200);
    bar.update('pack', 10, 10, 'steps');
    bar.end();
    expect(text()).toBe('');
  });

  it('writes one line at the start and one at the end where there is no terminal', () => {
    const { bar, at, text } = fake(false);
    bar.update('pack', 0, 4e9, 'bytes');
    for (let i = 1; i < 10; i++) {
      at(i * 400);
      bar.update('pack', i * 4e8, 4e9, 'bytes');
    }
    at(4000);
    bar.end();
    expect(text()).toBe('pack ...\npack: done in 4 s\n');
  });

  it('redraws one line on a terminal, no wider than it, not too often, and wipes it', () => {
    const { bar, at, text } = fake(true);
    bar.update('download', 0, 4e9, 'bytes');
    at(1000);
    bar.update('download', 1e9, 4e9, 'bytes');
    at(1001);
    bar.update('download', 1.1e9, 4e9, 'bytes');
    bar.end();
    const lines = text().split('\r').slice(1);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toContain('[######..................] 25% 1 GB of 4 GB');
    expect(lines[0]!.replace('\u001b[K', '').length).toBeLessThan(60);
    expect(lines[1]).toBe('\u001b[K');
  });

  it('keeps the numbers on a narrow terminal', () => {
    let text = '';
    let nowMs = 0;
    const stream = { isTTY: true, columns: 40, write: (piece: string) => (text += piece) };
    const bar = new ProgressBar({ stream, now: () => nowMs });
    bar.update('compiling and loading', 0, 4, 'steps');
    nowMs = 500;
    bar.update('compiling and loading', 2, 4, 'steps');
    expect(text).toBe('\rcompiling and loading 50% 2 of 4\u001b[K');
    nowMs = 1000;
    bar.update('measuring', 0, 4, 'steps');
    nowMs = 1500;
    bar.update('measuring', 2, 4, 'steps');
    bar.end();
    expect(text).toContain('\rmeasuring [########........] 50% 2 of 4\u001b[K');
  });

  it('takes a terminal that was told no size for one of 80 columns', () => {
    let text = '';
    let nowMs = 0;
    const stream = { isTTY: true, columns: 0, write: (piece: string) => (text += piece) };
    const bar = new ProgressBar({ stream, now: () => nowMs });
    bar.update('compile', 0, 4, 'steps');
    nowMs = 500;
    bar.update('compile', 2, 4, 'steps');
    bar.end();
    expect(text).toContain(`\rcompile [${'#'.repeat(12)}${'.'.repeat(12)}] 50% 2 of 4\u001b[K`);
  });

  it('does not say that what was stopped is done', () => {
    const { bar, at, text } = fake(false);
    bar.update('pull', 0, 10, 'steps');
    at(500);
    bar.update('pull', 5, 10, 'steps');
    bar.stop();
    bar.stop();
    expect(text()).toBe('pull ...\npull: stopped after 500 ms\n');
  });

  it('shows what takes long and is told of once', async () => {
    const lines: string[] = [];
    const bar = new ProgressBar({ stream: { write: (line) => lines.push(line) }, delayMs: 1 });
    bar.update('compile', 0, 0, 'steps');
    expect(lines).toEqual([]);
    await vi.waitFor(() => expect(lines).toEqual(['compile ...\n']));
    bar.end();
  });

  it('ends a phase when the next begins', () => {
    const { bar, at, text } = fake(false);
    bar.update('read', 0, 10, 'steps');
    at(500);
    bar.update('read', 5, 10, 'steps');
    at(600);
    bar.update('pack', 0, 10, 'steps');
    bar.end();
    expect(text()).toBe('read ...\nread: done in 600 ms\n');
  });
});
