import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { linesOf, runCli, type CliResult } from '../support/cli.js';
import { writeTinyModel, type TinyModel } from '../support/tiny-model.js';

describe('kloop chat through a pipe', () => {
  let model: TinyModel;
  beforeAll(async () => {
    model = await writeTinyModel({ chat: true });
  });
  afterAll(() => model.remove());

  const chat = (input: string, ...args: string[]): Promise<CliResult> =>
    runCli(['chat', model.path, '--backend', 'reference', '--temperature', '0', '--max-tokens', '6', ...args], {
      input,
    });

  it('answers every line, with what was said before in mind', async () => {
    const one = await chat('hello\n');
    const two = await chat('hello\nhello\n');
    expect([one.code, one.stderr, two.code]).toEqual([0, '', 0]);
    const [first, ...rest] = two.stdout.split('\n');
    expect(one.stdout).toBe(`${first!}\n`);
    expect(rest.join('')).not.toBe(first);
  });

  it('forgets on /reset, helps on /help, leaves on /exit', async () => {
    const one = await chat('hello\n');
    const { code, stdout, stderr } = await chat('hello\n/reset\n/help\n\n/what\nhello\n/exit\nhello\n');
    expect(code).toBe(0);
    expect(stdout).toBe(one.stdout.repeat(2));
    expect(stderr).toMatch(/^forgotten\n\/help .*\n/);
    expect(stderr).toContain('there is no command /what; /help lists them');
  });

  it('puts the system text before the conversation', async () => {
    expect((await chat('hello\n', '--system', 'Be brief.')).stdout).not.toBe((await chat('hello\n')).stdout);
  });

  it('tells when the conversation has outgrown the context', async () => {
    const { code, stderr } = await chat(`${'x'.repeat(200)}\n`);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^kloop: the prompt has \d+ tokens, the context holds 128; [^\n]*\n$/);
  });

  it('ends at Ctrl+C, whatever lines are left, and returns 130', async () => {
    let pieces = 0;
    const args = ['chat', model.path, '--backend', 'reference', '--schedule', 'operator', '--temperature', '0'];
    const { code, stdout } = await runCli(args, {
      input: 'hello\n/reset\nhello\n',
      onStdout: (_, child) => {
        if (++pieces === 1) child.kill('SIGINT');
      },
    });
    expect(code).toBe(130);
    expect(stdout.split('\n')).toEqual([expect.stringMatching(/./), '']);
  });

  it('sends who has no chat template to run', async () => {
    const plain = await writeTinyModel();
    try {
      plain.editJson('tokenizer_config.json', (json) => delete json['chat_template']);
      const { code, stdout, stderr } = await runCli(['chat', plain.path], { input: 'hello\n' });
      expect([code, stdout]).toEqual([1, '']);
      expect(linesOf(stderr)).toHaveLength(1);
      expect(stderr).toMatch(/^kloop: .*no chat template.*kloop run/);
    } finally {
      plain.remove();
    }
  });
});
