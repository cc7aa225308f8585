import { readdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { referenceBackend } from '../backends/reference/index.js';
import type { Checkpoint } from '../checkpoint/checkpoint.js';
import { defined } from '../util/assert.js';
import { UsageError } from '../util/errors.js';
import { findPreset } from '../models/presets.js';
import { openPeers } from './peers.js';

it('llama.cpp is not measured beyond a window that it does not have', async () => {
  const { config } = defined(findPreset('mistral-7b'), 'preset');
  const checkpoint = { config, weights: { fingerprint: '' } } as unknown as Checkpoint;
  const cacheDir = mkdtempSync(join(tmpdir(), 'kloop-peers-'));
  try {
    const opening = openPeers(
      ['llama.cpp'],
      checkpoint,
      {
        ...{ backend: referenceBackend, weights: 'bf16', context: 8192, cacheDir },
        ...{ onBytes: () => undefined, onNotice: () => undefined },
      },
      () => undefined,
    );
    await expect(opening).rejects.toThrow(UsageError);
    await expect(opening).rejects.toThrow(/no sliding window for llama models.* 4096 .*not 8192; .*--peer/);
    expect(readdirSync(cacheDir)).toEqual([]);
  } finally {
    rmSync(cacheDir, { recursive: true });
  }
});
