/**
 * Opens broken GGUF files by the hundred thousand (tests/support/gguf-fuzz.ts); tests run a few hundred of them.
 *
 *   node scripts/fuzz-gguf.mjs [RUNS] [SEED]      default: 100000 runs, a new seed
 */
import { fileURLToPath } from 'node:url';
import { createViteServer } from 'vitest/node';

const [runs = 100_000, seed = Date.now() % 2 ** 31] = process.argv.slice(2).map(Number);
const root = fileURLToPath(new URL('..', import.meta.url));
const server = await createViteServer({ root, configFile: false, logLevel: 'error', server: { middlewareMode: true } });
try {
  const { fuzzGguf } = await server.ssrLoadModule('/tests/support/gguf-fuzz.ts');
  console.log(`${runs} files, seed ${seed}`);
  const { opened, refused } = await fuzzGguf(runs, seed);
  console.log(`${refused} refused with one error each, ${opened} still a model`);
} finally {
  await server.close();
}
