import { execFile } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import ts from 'typescript';
import { expect, it } from 'vitest';

const root = fileURLToPath(new URL('..', import.meta.url));

it('examples/generate.ts runs as it is', async () => {
  const source = readFileSync(join(root, 'examples/generate.ts'), 'utf8');
  const { outputText } = ts.transpileModule(source, {
    compilerOptions: { module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ES2022 },
  });
  // Inside the package, so that `kloop` is this package, as it is for a user who installed it.
  const directory = join(root, 'dist/examples');
  mkdirSync(directory, { recursive: true });
  const program = join(directory, 'generate.js');
  writeFileSync(program, outputText);
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [program], {
      env: { ...process.env, XDG_CACHE_HOME: join(tmpdir(), 'kloop-test-cache') },
    });
    expect(stdout).toMatch(/^Once upon a time.* /);
    expect(stdout).toMatch(/^\d+ tokens, then (stop|length)$/m);
    expect(stdout).toMatch(/^\d+ of \d+ prompt tokens were in the cache$/m);
    expect(stdout).toMatch(/kernel calls per token$/m);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
