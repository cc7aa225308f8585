import { describe, expect, it } from 'vitest';
import { linesOf, runCli } from '../support/cli.js';

const story = ['run', 'demo', '--prompt', 'Once upon a time', '--max-tokens', '100'];

describe('the bundled model', () => {
  it('tells a story and compares the schedules, as npm start does', async () => {
    const { code, stdout, stderr } = await runCli([...story, '--compare', 'operator']);
    expect(code).toBe(0);
    expect(stdout.trim().split(/\s+/).length).toBeGreaterThan(40);
    const lines = linesOf(stderr).filter(
      (line) => !line.startsWith('kloop: ') && !/^\w+ing (weights|kernels)/.test(line),
    );
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^\d+ tokens; response: \d+ tokens\/s, 0\.\d+ kernel calls per token; backend \w+, /);
    expect(lines[1]).toMatch(/^operator: \d+ tokens\/s, \d+ kernel calls per token; response is [\d.]+x as fast/);
  });

  it('says the same on the default backend and on the reference backend', async () => {
    const tokens = async (...more: string[]): Promise<unknown> => {
      const { code, stdout } = await runCli([...story, '--json', ...more]);
      expect(code).toBe(0);
      return (JSON.parse(stdout) as { tokens: unknown }).tokens;
    };
    expect(await tokens()).toEqual(await tokens('--backend', 'reference'));
  });
});
