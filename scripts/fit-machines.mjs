// Fits the constants that are not public (launch costs, efficiencies) to the calibration figures, and to nothing else, and
// writes them where the machines read them. Needs a build: `npm run build && node scripts/fit-machines.mjs`.
import { writeFileSync } from 'node:fs';
import { fitMachine } from '../dist/simulator/reproduce/fit.js';
import { Lab } from '../dist/simulator/reproduce/lab.js';

const target = new URL('../src/simulator/machines/fitted.ts', import.meta.url);
const exports = { sn40l: 'fittedSn40l', 'dgx-h100': 'fittedH100' };
const lab = new Lab();

const blocks = Object.entries(exports).map(([machine, name]) => {
  const { values, error } = fitMachine(machine, lab);
  console.log(`${machine}: ${JSON.stringify(values)}, root mean square error ${(100 * error).toFixed(2)}%`);
  const lines = Object.entries(values).map(([key, value]) => `  ${/^\w+$/.test(key) ? key : `'${key}'`}: ${value},`);
  return `export const ${name} = {\n${lines.join('\n')}\n} as const;\n`;
});
const header =
  '/** Written by scripts/fit-machines.mjs from the calibration figures (marked C) alone; not edited by hand. */\n';
writeFileSync(target, header + blocks.join('\n'));
