/** Options of a script: --help lists them, and one that is not known ends it with one line. */
import { basename } from 'node:path';
import { parseArgs } from 'node:util';

/** As parseArgs, whose `config` it takes. */
export function scriptOptions(config) {
  const { options, allowPositionals = false } = config;
  const script = basename(process.argv[1]);
  const list = Object.entries(options).map(([name, { type, default: value }]) => {
    const shown = value === undefined || value === false ? '' : ` (default: ${value})`;
    return `--${name}${type === 'boolean' ? '' : ' <value>'}${shown}`;
  });
  try {
    const { values, positionals } = parseArgs({ ...config, options: { ...options, help: { type: 'boolean' } } });
    if (values.help !== true) return { values, positionals };
    console.log(
      [
        `Usage: node scripts/${script} [options]${allowPositionals ? ' [MODEL ...]' : ''}`,
        '',
        ...list.map((line) => `  ${line}`),
      ].join('\n'),
    );
    process.exit(0);
  } catch (error) {
    console.error(`${script}: ${error.message.split('. ')[0]}; see --help`);
    process.exit(2);
  }
}
