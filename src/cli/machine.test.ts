import { expect, it, vi } from 'vitest';
import { inspectMemory } from './machine.js';

it('counts what a control group may have, and has left, as its memory', () => {
  const spies = [
    vi.spyOn(process, 'constrainedMemory').mockReturnValue(1e9),
    vi.spyOn(process, 'availableMemory').mockReturnValue(2e8),
  ];
  try {
    const { total_bytes: total, free_bytes: free } = inspectMemory().value as Record<string, number>;
    expect(total).toBe(1e9);
    expect(free).not.toBe(total);
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
});
