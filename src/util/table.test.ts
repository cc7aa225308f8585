import { expect, it } from 'vitest';
import { formatTable } from './table.js';

it('aligns columns and leaves no trailing spaces', () => {
  const lines = formatTable(
    [{ title: 'name' }, { title: 'layers', align: 'right' }, { title: 'note' }],
    [
      ['llama-3.1-8b', '32', ''],
      ['x', '126', 'big'],
    ],
  );
  expect(lines).toEqual(['name          layers  note', 'llama-3.1-8b      32', 'x                126  big']);
});
