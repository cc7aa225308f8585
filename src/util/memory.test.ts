import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { availableMemory, reclaimableBytes } from './memory.js';

const roots: string[] = [];
afterEach(() => {
  for (const root of roots.splice(0)) rmSync(root, { recursive: true });
});

/** A file system with these files. */
function rootWith(files: Readonly<Record<string, string>>): string {
  const root = mkdtempSync(join(tmpdir(), 'kloop-memory-'));
  roots.push(root);
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

describe('memory that can be taken back', () => {
  const stat = (bytes: number): string => `anon 7\nfile 9\ninactive_anon 3\ninactive_file ${bytes}\nactive_file 5\n`;

  it.each<[string, Record<string, string>, number]>([
    [
      'a group of version 2, seen from outside of it',
      {
        'proc/self/cgroup': '0::/system.slice/kloop.service\n',
        'sys/fs/cgroup/system.slice/kloop.service/memory.stat': stat(4096),
        'sys/fs/cgroup/memory.stat': stat(1),
      },
      4096,
    ],
    [
      'a container of version 2, which is its own root',
      { 'proc/self/cgroup': '0::/\n', 'sys/fs/cgroup/memory.stat': stat(8192) },
      8192,
    ],
    [
      'a group of version 1, with those below it',
      {
        'proc/self/cgroup': '5:cpu,memory:/a/b\n4:pids:/\n0::/\n',
        'sys/fs/cgroup/memory/a/b/memory.stat': `${stat(1)}total_inactive_file 12288\n`,
      },
      12_288,
    ],
    [
      'a container of version 1, which does not see where it is',
      {
        'proc/self/cgroup': '4:memory:/docker/0123\n',
        'sys/fs/cgroup/memory/memory.stat': `${stat(1)}total_inactive_file 16384\n`,
      },
      16_384,
    ],
    ['no control group', {}, 0],
    ['a group that tells nothing', { 'proc/self/cgroup': '0::/x\n' }, 0],
  ])('is that of %s', (_, files, bytes) => {
    expect(reclaimableBytes(rootWith(files))).toBe(bytes);
  });

  it('is part of what is available here', () => {
    expect(availableMemory()).toBeGreaterThan(0);
  });
});
