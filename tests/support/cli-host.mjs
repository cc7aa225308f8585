/**
 * A process that runs one command line after another, as messages ask for them. The command line is imported anew for each;
 * what it imports itself is there already, and that is most of what starting it costs.
 */
const [entry] = process.argv.slice(2);
const inherited = { ...process.env };
const streams = ['stdout', 'stderr'];
let count = 0;

// Every command line listens to both, and never ends.
for (const stream of streams) process[stream].setMaxListeners(0);

process.on('message', async ({ args, env }) => {
  const result = { code: null, stdout: '', stderr: '' };
  for (const stream of streams) {
    process[stream].write = (text) => {
      result[stream] += text;
      return true;
    };
  }
  process.argv = [process.execPath, entry, ...args];
  process.env = { ...inherited, ...env };
  process.exitCode = undefined;
  try {
    await import(`${entry}?${count++}`);
    result.code = process.exitCode ?? 0;
  } catch (error) {
    result.stderr += String(error);
  }
  process.exitCode = undefined;
  process.send(result);
});
