/**
 * The stand-ins of the CUDA driver and of NVRTC, and a compiler whose images the driver runs: generated kernels become host code
 * over host_shim.h, so that the whole way from a program to its tokens runs where there is no GPU.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inlineHeaders } from '../../../src/backends/cuda/emit/program.js';
import type { CudaCompiler } from '../../../src/backends/cuda/compilers.js';

const here = fileURLToPath(new URL('.', import.meta.url));
const text = (name: string): string => readFileSync(join(here, name), 'utf8');

/** For a shared library. */
export const hostFlags = [
  ...['-std=c++17', '-Og', '-fPIC', '-shared', '-fvisibility=hidden', '-ffp-contract=off'],
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

/** What the stand-in of the driver says that there is, and what goes wrong there. */
export interface FakeMachine {
  readonly devices: number;
  /** Of its compute capability. */
  readonly major: number;
  readonly minor: number;
  readonly multiprocessors: number;
  readonly freeBytes: number;
  /** The largest piece of memory that can be had. */
  readonly largestPiece: number;
  /** In cooperative launches: 1: a block never runs; 2: copies never land. 3: nothing can be made of a graph. */
  readonly fault: 0 | 1 | 2 | 3;
  /** Shared memory that one block may have. */
  readonly sharedBytes: number;
  /** Whether it launches kernels whose blocks wait for each other. */
  readonly cooperative: 0 | 1;
}

const plainMachine: FakeMachine = {
  devices: 1,
  major: 9,
  minor: 0,
  multiprocessors: 3,
  freeBytes: 2 ** 32,
  largestPiece: 2 ** 32,
  fault: 0,
  sharedBytes: 227 << 10,
  cooperative: 1,
};

const driverFlags = ['-std=c++17', '-O1', '-fPIC', '-fvisibility=hidden', '-Wall', '-Wextra', '-Werror'];

/** Path of a driver, made in `directory`, where it is compiled only once for any number of machines. */
export function makeFakeDriver(directory: string, name = 'libfakecuda', different: Partial<FakeMachine> = {}): string {
  const object = join(directory, 'fake_cuda.o');
  if (!existsSync(object)) execFileSync('g++', [...driverFlags, '-c', '-o', object, join(here, 'fake_cuda.cpp')]);
  const [source, path] = [join(directory, `${name}.cpp`), join(directory, `${name}.so`)];
  writeFileSync(source, machineSource({ ...plainMachine, ...different }));
  execFileSync('g++', [...driverFlags, '-shared', '-o', path, object, source, '-ldl']);
  return path;
}

function machineSource(machine: FakeMachine): string {
  const { devices, major, minor, multiprocessors, freeBytes, largestPiece, fault, sharedBytes, cooperative } = machine;
  const words = [devices, major, minor, multiprocessors, freeBytes, largestPiece, fault, sharedBytes, cooperative];
  return `extern "C" const unsigned long long machine[] = {${words.join(', ')}};\n`;
}

/** Path of an NVRTC. @param definitions `FAKE_MAJOR=11` */
export function makeFakeNvrtc(directory: string, name = 'libfakenvrtc', definitions: readonly string[] = []): string {
  const path = join(directory, `${name}.so`);
  const defined = definitions.map((definition) => `-D${definition}`);
  execFileSync('g++', [...driverFlags, '-shared', ...defined, '-o', path, join(here, 'fake_nvrtc.cpp'), '-ldl']);
  return path;
}
