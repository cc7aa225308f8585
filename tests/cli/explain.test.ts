import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { linesOf } from '../support/cli.js';
import { shareCliProcess } from '../support/cli-process.js';

interface ExplainJson {
  readonly calls_per_token: number;
  readonly calls_per: string;
  readonly kernels: readonly { readonly name: string; readonly calls: number }[];
  readonly refusals: readonly { readonly reason: string }[];
}

const run = shareCliProcess();

async function explain(...args: string[]): Promise<ExplainJson> {
  const { code, stdout, stderr } = await run(['explain', ...args, '--json']);
  expect([code, stderr]).toEqual([0, '']);
  return JSON.parse(stdout) as ExplainJson;
}

describe('kloop explain', () => {
  it.each([
    ['operator', 323, 'token'],
    ['layer', 35, 'token'],
    ['looped', 4, 'token'],
    ['response', 1, 'response'],
  ])("has the paper's count of Llama 3.1 8B on 8 sockets: %s %d per %s", async (schedule, calls, per) => {
    const result = await explain('llama-3.1-8b', '--sockets', '8', '--schedule', schedule);
    expect([result.calls_per_token, result.calls_per]).toEqual([calls, per]);
    expect(result.kernels.reduce((sum, kernel) => sum + kernel.calls, 0)).toBe(calls);
    expect(result.refusals).toEqual([]);
  });

  it('tells people the same, with all schedules beside each other', async () => {
    const { code, stdout } = await run(['explain', 'gemma-2-2b', '--schedule', 'looped']);
    expect(code).toBe(0);
    expect(stdout).toContain('calls per token: 4');
    expect(stdout).toContain('13 iterations of 2 calls');
    expect(stdout).toMatch(
      /^operator +263 per token\nlayer +29 per token\nlooped +4 per token\nresponse +1 per response\n/m,
    );
  });

  it('says where fewer bytes may be read than it shows', async () => {
    const line = /^bytes of bf16 matrices are .* three quarters where they allow it$/m;
    expect((await run(['explain', 'demo'])).stdout).toMatch(line);
    expect((await run(['explain', 'demo', '--sockets', '2'])).stdout).not.toMatch(line);
  });

  it('prints the program', async () => {
    const { code, stdout } = await run(['explain', 'smollm2-135m', '--schedule', 'looped', '--ir']);
    expect(code).toBe(0);
    expect(stdout).toMatch(/for layer in 30 \(/);
  });

  it('says of a GGUF file what `simulate` says of it, with every matrix in its own format', async () => {
    const file = fileURLToPath(new URL('../fixtures/gguf/mixed.gguf', import.meta.url));
    const { stdout } = await run(['explain', file, '--machine', 'h200']);
    expect(stdout).toMatch(/^layer +5 per token\nlooped +5 per token$/m);
    const advice = linesOf(stdout).slice(-2);
    expect(advice[1]).toMatch(/^nothing, because no layers share a kernel/);
    const simulated = await run(['simulate', file, '--machine', 'h200', '--sockets', '1']);
    expect(simulated.stdout).toContain(advice.join('\n'));
  });

  it('says in one line that sockets do not fit', async () => {
    const { code, stdout, stderr } = await run(['explain', 'smollm2-135m', '--sockets', '7']);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^kloop: [^\n]*7[^\n]*\n$/);
  });
});
