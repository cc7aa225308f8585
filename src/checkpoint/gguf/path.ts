import { extname } from 'node:path';

/** Whether a path means a GGUF file, by its name. */
export function isGgufPath(path: string): boolean {
  return extname(path).toLowerCase() === '.gguf';
}
