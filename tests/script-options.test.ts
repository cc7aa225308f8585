/** Scripts that users run say what they take, and refuse the rest with one line. */
import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';

describe.each(['bench-context', 'bench-threads', 'bench-predict', 'bench-serve', 'soak'])(
  'scripts/%s.mjs',
  (script) => {
    const run = (...args: string[]) => {
      const { status, stdout, stderr } = spawnSync(process.execPath, [`scripts/${script}.mjs`, ...args], {
        encoding: 'utf8',
      });
      return { status, stdout, stderr };
    };

    it('lists its options', () => {
      const { status, stdout, stderr } = run('--help');
      expect([status, stderr]).toEqual([0, '']);
      expect(stdout).toMatch(new RegExp(`^Usage: node scripts/${script}.mjs \\[options\\].*\\n\\n  --`));
    });

    it('refuses others', () => {
      expect(run('--nope')).toEqual({
        ...{ status: 2, stdout: '' },
        stderr: `${script}.mjs: Unknown option '--nope'; see --help\n`,
      });
    });
  },
);
