/**
 * The stand-ins of the CUDA driver and of NVRTC, and a compiler whose images the driver runs: generated kernels become host code
 * over host_shim.h, so that the whole way from a program to its tokens runs where there is no GPU.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inlineHeaders } from '../../../src/backends/cuda/emit/program.js';
import type { CudaCompiler } from '../../../src/backends/cuda/compilers.js';

const here = fileURLToPath(new URL('.', import.meta.url));
const text = (name: string): string => readFileSync(join(here, name), 'utf8');

/** For a shared library. */
export const hostFlags = [
  ...['-std=c++17', '-O1', '-fPIC', '-shared', '-fvisibility=hidden', '-ffp-contract=off'],
  ...['-Wall', '-Wextra', '-Werror', '-Wno-unknown-pragmas'],
];

/** A generated source as one C++ file for a processor. */
export function hostSource(source: string): string {
  return `${inlineHeaders(source, text('host_shim.h'))}${text('host_run.h').replace('#pragma once\n', '')}`;
}

export const hostCompiler: CudaCompiler = {
  path: 'g++',
  version: 'host',
  textOf: hostSource,
  flags: () => hostFlags,
  inputName: 'program.cpp',
  command: (flags, input, output) => ({ program: 'g++', args: [...flags, '-o', output, input] }),
};

/** Path of a driver, made in `directory`. @param definitions `FAKE_DEVICES=0` and the like */
export function makeFakeDriver(directory: string, name = 'libfakecuda', definitions: readonly string[] = []): string {
  return makeLibrary('fake_cuda.cpp', join(directory, `${name}.so`), definitions);
}

/** Path of an NVRTC. @param definitions `FAKE_MAJOR=11` */
export function makeFakeNvrtc(directory: string, name = 'libfakenvrtc', definitions: readonly string[] = []): string {
  return makeLibrary('fake_nvrtc.cpp', join(directory, `${name}.so`), definitions);
}

function makeLibrary(source: string, path: string, definitions: readonly string[]): string {
  const flags = ['-std=c++17', '-O1', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror'];
  const defined = definitions.map((definition) => `-D${definition}`);
  execFileSync('g++', [...flags, ...defined, '-o', path, join(here, source), '-ldl']);
  return path;
}
