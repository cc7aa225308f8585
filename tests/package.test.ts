import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

it('the package holds what kloop reads when it runs, and nothing of the tests', () => {
  const listing = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [{ files }] = JSON.parse(listing) as [{ files: readonly { path: string }[] }];
  const paths = files.map(({ path }) => path);
  expect(paths).toEqual(
    expect.arrayContaining([
      'dist/index.js',
      'dist/index.d.ts',
      'dist/cli/main.js',
      'dist/web/index.html',
      'demo/model.safetensors',
      'src/backends/cpu/support/linear.h',
      'src/backends/cuda/support/linear.cuh',
      // What `bench --peer` runs, and says how to install.
      'bench/peer/package.json',
      'bench/peer/llama-cpp.mjs',
      'bench/peer/pytorch.py',
      'bench/peer/no-gpu/package.json',
      'README.md',
      'LICENSE',
    ]),
  );
  expect(paths.filter((path) => /\.test\.|node_modules|^tests\//.test(path))).toEqual([]);
});
