import { describe, expect, it } from 'vitest';
import { formatBytes, formatCount, formatDuration, significant } from './units.js';

describe('units', () => {
  it('keeps three significant digits', () => {
    expect([0, 1, 4.567, 12.34, 999.4, 999.6, 1234.5, 0.012345, 0.0000001234].map(significant)).toEqual([
      '0',
      '1',
      '4.57',
      '12.3',
      '999',
      '1000',
      '1235',
      '0.0123',
      '0.000000123',
    ]);
    expect(significant(100)).toBe('100');
    expect(significant(10.04)).toBe('10');
  });

  it('scales bytes and counts by powers of 1000', () => {
    expect([0, 999, 1000, 2.5e9, 999_999, 1e18].map(formatBytes)).toEqual([
      '0 B',
      '999 B',
      '1 kB',
      '2.5 GB',
      '1 MB',
      '1000 PB',
    ]);
    expect([512, 134_515_008, 8_030_261_248].map(formatCount)).toEqual(['512', '135M', '8.03B']);
  });

  it('picks a unit for durations', () => {
    expect([0.85, 12.34, 4560, 200_000, 119_700, Infinity].map(formatDuration)).toEqual([
      '850 us',
      '12.3 ms',
      '4.56 s',
      '3 min 20 s',
      '2 min 0 s',
      'unknown',
    ]);
  });
});
