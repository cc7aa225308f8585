/**
 * NVRTC (libnvrtc), the compiler of CUDA C++ as a library, as typed calls: source in, a cubin for one machine out. It needs no
 * compiler of the host and none of its headers. Source: NVRTC 13.0, nvrtc.h.
 */
import koffi from 'koffi';
import { ToolchainError, messageOf } from '../../util/errors.js';

const signatures = [
  'int nvrtcVersion(void *major, void *minor)',
  'int nvrtcCreateProgram(void *program, const char *source, const char *name, int headers, void *texts, void *names)',
  'int nvrtcCompileProgram(uint64_t program, int count, const char **options)',
  'int nvrtcGetProgramLogSize(uint64_t program, void *size)',
  'int nvrtcGetProgramLog(uint64_t program, void *log)',
  'int nvrtcGetCUBINSize(uint64_t program, void *size)',
  'int nvrtcGetCUBIN(uint64_t program, void *cubin)',
  'int nvrtcDestroyProgram(void *program)',
] as const;

type NameIn<S extends string> = S extends `int ${infer N}(${string}` ? N : never;
type NvrtcCall = NameIn<(typeof signatures)[number]>;

const NVRTC_ERROR_COMPILATION = 6;

export class Nvrtc {
  private readonly library: ReturnType<typeof koffi.load>;
  private readonly calls: ReadonlyMap<string, (...args: unknown[]) => unknown>;
  private readonly describe: (code: number) => string;

  /**
   * @param path a path, or a name that the loader looks for
   * @throws ToolchainError where there is no such library, or where it is none of NVRTC
   */
  constructor(readonly path: string) {
    try {
      this.library = koffi.load(path);
      this.calls = new Map(
        signatures.map((signature) => [
          /^int (\w+)\(/.exec(signature)![1]!,
          this.library.func(signature) as (...args: unknown[]) => unknown,
        ]),
      );
      this.describe = this.library.func('const char *nvrtcGetErrorString(int code)') as (code: number) => string;
    } catch (error) {
      throw new ToolchainError(`NVRTC cannot be used (${path}): ${messageOf(error)}`, { cause: error });
    }
  }

  /** [13, 0] */
  version(): readonly [major: number, minor: number] {
    const [major, minor] = [new Int32Array(1), new Int32Array(1)];
    this.call('nvrtcVersion', major, minor);
    return [major[0]!, minor[0]!];
  }

  /**
   * A cubin. This thread waits for it.
   * @param name what messages call the source
   * @throws ToolchainError with everything that the compiler said
   */
  compile(source: string, name: string, options: readonly string[]): Uint8Array {
    const program = new BigUint64Array(1);
    this.call('nvrtcCreateProgram', program, source, name, 0, null, null);
    try {
      const code = this.raw('nvrtcCompileProgram', program[0], options.length, [...options]);
      if (code !== 0) {
        const log = this.read('nvrtcGetProgramLogSize', 'nvrtcGetProgramLog', program[0]!);
        const text = Buffer.from(log).toString('utf8').replace(/\0.*$/s, '').trim();
        // Errors of the source are in the log; of others there may be one.
        if (code === NVRTC_ERROR_COMPILATION) throw new ToolchainError(text);
        throw new ToolchainError(`error: ${this.describe(code)}${text === '' ? '' : `\n${text}`}`);
      }
      return this.read('nvrtcGetCUBINSize', 'nvrtcGetCUBIN', program[0]!);
    } finally {
      this.call('nvrtcDestroyProgram', program);
    }
  }

  /** The library is not used any more. */
  close(): void {
    this.library.unload();
  }

  private read(sizeOf: NvrtcCall, get: NvrtcCall, program: bigint): Uint8Array {
    const size = new BigUint64Array(1);
    this.call(sizeOf, program, size);
    const bytes = new Uint8Array(Number(size[0]));
    this.call(get, program, bytes);
    return bytes;
  }

  private raw(name: NvrtcCall, ...args: readonly unknown[]): number {
    return this.calls.get(name)!(...args) as number;
  }

  private call(name: NvrtcCall, ...args: readonly unknown[]): void {
    const code = this.raw(name, ...args);
    if (code !== 0) throw new ToolchainError(`error: ${name}: ${this.describe(code)}`);
  }
}
