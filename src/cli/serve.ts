/** `kloop serve MODEL...`: an OpenAI-compatible server. SIGTERM and Ctrl+C let it finish what it has begun. */
import { readFileSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import type { Logger } from 'pino';
import { defaultCacheDir } from '../backends/cache-dir.js';
import { readHostMachine } from '../bench/calibrate/host-file.js';
import { outlineModel } from '../runtime/load-model.js';
import type { ModelSource } from '../server/served-models.js';
import type { RunningServer } from '../server/server.js';
import { messageOf, UsageError } from '../util/errors.js';
import { errorCode } from '../util/files.js';
import { listenForInterrupt } from './interrupt.js';
import { loadForCli } from './load.js';
import { addLoadOptions, collect, defined, integer, loadOptionsOf, type LoadFlags } from './options.js';
import { refusePricedOnly } from './priced-only.js';
import type { Verb } from './verb.js';

interface Flags extends LoadFlags {
  readonly host: string;
  readonly port: number;
  readonly slots: number;
  readonly queue: number;
  readonly idleUnload?: number;
  readonly apiKeyFile?: string;
  readonly insecure?: boolean;
  readonly allowHost?: readonly string[];
  readonly allowOrigin?: readonly string[];
  readonly requestTime: number;
  readonly drainTime: number;
  readonly metricsPrefix: string;
}

/** With several models, each is unloaded after this long without a request. */
const defaultIdleSeconds = 600;

export const serve: Verb = (program) => {
  const command = program
    .command('serve')
    .description('serve models over HTTP, as the OpenAI API')
    .argument('<models...>', '`demo`, a directory, a .gguf file, or OWNER/NAME that has been pulled')
    .option('--host <host>', 'address to listen on', '127.0.0.1')
    .option('--port <port>', 'port to listen on; 0 is any free one', integer(0, 65535), 8080)
    .option('--slots <n>', 'texts made at the same time; each has a KV cache of its own', integer(1, 256), 8)
    .option(
      '--idle-unload <s>',
      `seconds without a request after which a model is unloaded, 0: never (default: ${defaultIdleSeconds} with several models, else 0)`,
      integer(0, 86_400 * 30),
    )
    .option('--queue <n>', 'texts that may wait for a slot', integer(0), 256);
  addAccessOptions(addLoadOptions(command))
    .option('--request-time <s>', 'seconds that a request may take', integer(1, 86_400), 600)
    .option('--drain-time <s>', 'seconds to finish requests after SIGTERM', integer(0, 86_400), 30)
    .option('--metrics-prefix <prefix>', 'first part of the names of metrics', 'kloop:')
    .action(serveAction);
};

function addAccessOptions(command: Command): Command {
  return command
    .option('--api-key-file <file>', 'file with the key that callers need (or the variable KLOOP_API_KEY)')
    .option('--insecure', 'let other machines call without a key')
    .option('--allow-host <name>', 'name by which it may be called; * is any; may be given several times', hostName)
    .option(
      '--allow-origin <origin>',
      'web pages that may call it, such as https://example.org; * is any; may be given several times',
      origin,
    );
}

/** As it comes in a `Host` header, which is compared in small letters. Throws InvalidArgumentError. */
function hostName(text: string, before?: readonly string[]): readonly string[] {
  const name = text.toLowerCase();
  if (name === '*' || /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/.test(name)) return collect(name, before);
  throw new InvalidArgumentError('It must be * or a name without a port.');
}

/** As browsers write it. Throws InvalidArgumentError. */
function origin(text: string, before?: readonly string[]): readonly string[] {
  if (text === '*') return collect(text, before);
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // An address of nothing but an origin becomes it and a slash.
  if (url !== undefined && url.origin !== 'null' && url.href === `${url.origin}/`) return collect(url.origin, before);
  throw new InvalidArgumentError('It must be * or an origin, such as https://example.org.');
}

async function serveAction(specs: readonly string[], flags: Flags): Promise<void> {
  if (!/^[A-Za-z_:][A-Za-z0-9_:]*$/.test(flags.metricsPrefix)) {
    throw new UsageError('--metrics-prefix is letters, digits, underscores and colons');
  }
  const apiKey = readKey(flags.apiKeyFile);
  // No other verb should wait for these to be read.
  const [{ pino }, { startServer }] = await Promise.all([import('pino'), import('../server/server.js')]);
  const log = pino({ base: null, timestamp: pino.stdTimeFunctions.isoTime }, pino.destination({ fd: 2, sync: true }));
  const sources = await Promise.all(specs.map((spec) => sourceOf(spec, flags, log)));
  const several = sources.length > 1;
  const server = await startServer({
    models: sources,
    // One model is what everybody waits for; of several, who knows which are wanted.
    preload: several ? [] : sources.map(({ name }) => name),
    idleMs: (flags.idleUnload ?? (several ? defaultIdleSeconds : 0)) * 1000,
    log,
    host: flags.host,
    port: flags.port,
    insecure: flags.insecure ?? false,
    access: { ...defined({ apiKey }), ...accessOf(flags) },
    limits: { queue: flags.queue, requestMs: flags.requestTime * 1000 },
    metricsPrefix: flags.metricsPrefix,
    ...defined({ hostMachine: readHostMachine(flags.cacheDir ?? defaultCacheDir()) }),
  });
  log.info({ url: server.url, models: sources.map(({ name }) => name) }, 'listening');
  await untilStopped(server, log, flags.drainTime * 1000);
}

function accessOf({ allowHost = [], allowOrigin = [] }: Flags) {
  return { allowedHosts: allowHost, allowedOrigins: allowOrigin };
}

/** Looked at, so that what cannot work is said at once; loaded later. */
async function sourceOf(spec: string, flags: Flags, log: Logger): Promise<ModelSource> {
  refusePricedOnly(spec);
  const options = { ...loadOptionsOf(flags), slots: flags.slots };
  const { name, limits, weightBytes, stateBytes } = await outlineModel(spec, options);
  return {
    name,
    context: limits.context,
    bytes: weightBytes + stateBytes,
    load: async (signal) => {
      using interrupt = listenForInterrupt();
      const model = await loadForCli(spec, { ...options, signal: AbortSignal.any([signal, interrupt.signal]) });
      const { schedule, backend, quant, threads } = model;
      log.info(
        { model: name, schedule, backend, quant, threads, slots: flags.slots, context: model.limits.context },
        'loaded',
      );
      return model;
    },
  };
}

/** A key on the command line could be read by every user of the machine, so it comes out of a file or the environment. */
function readKey(file: string | undefined): string | undefined {
  const key = file === undefined ? process.env['KLOOP_API_KEY'] : readKeyFile(file);
  if (key === undefined) return undefined;
  // What a header can carry, and no key that was left empty by mistake.
  if (/^[\x21-\x7e]{8,512}$/.test(key)) return key;
  throw new UsageError('the API key must be 8 to 512 printable characters without spaces');
}

function readKeyFile(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    const reason = errorCode(error) === 'ENOENT' ? 'there is no such file' : messageOf(error);
    throw new UsageError(`the API key cannot be read from ${file}: ${reason}`, {
      hint: 'give a file that holds it',
      cause: error,
    });
  }
}

/** The first signal lets requests end, the second one ends them. */
async function untilStopped(server: RunningServer, log: Logger, drainMs: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let asked = false;
    const stop = (signal: NodeJS.Signals): void => {
      log.info({ signal, in_flight: server.inFlight }, asked ? 'stopping at once' : 'stopping');
      server.close(asked ? 0 : drainMs).then(resolve, reject);
      asked = true;
    };
    process.on('SIGTERM', stop);
    process.on('SIGINT', stop);
  });
  log.info('stopped');
}
