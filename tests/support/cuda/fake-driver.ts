/**
 * The stand-in of the CUDA driver, and of its compiler: generated kernels become host code over host_shim.h, so that the
 * whole way from a program to its tokens runs where there is no GPU.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inlineHeaders } from '../../../src/backends/cuda/emit/program.js';
import type { CudaCompiler } from '../../../src/backends/cuda/toolchain.js';

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
};

/** Path of a driver, made in `directory`. @param definitions `FAKE_DEVICES=0` and the like */
export function makeFakeDriver(directory: string, name = 'libfakecuda', definitions: readonly string[] = []): string {
  const path = join(directory, `${name}.so`);
  const flags = ['-std=c++17', '-O1', '-fPIC', '-shared', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror'];
  execFileSync('g++', [
    ...flags,
    ...definitions.map((definition) => `-D${definition}`),
    '-o',
    path,
    join(here, 'fake_cuda.cpp'),
    '-ldl',
  ]);
  return path;
}
