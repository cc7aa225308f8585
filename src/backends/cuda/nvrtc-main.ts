/**
 * NVRTC as a program, called like nvcc: `node nvrtc-main.js LIBRARY OUTPUT INPUT OPTION...`. A process of its own, since compiling
 * takes seconds in which nothing else of a thread runs, can be stopped only from outside, and needs 100 MB of library.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { Nvrtc } from './nvrtc.js';

const [library = '', output = '', input = '', ...options] = process.argv.slice(2);
try {
  writeFileSync(output, new Nvrtc(library).compile(readFileSync(input, 'utf8'), basename(input), options));
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error));
  process.exitCode = 1;
}
