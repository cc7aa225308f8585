/**
 * llama.cpp on the CPU behind a line protocol: one JSON object per line on stdin, one answer per line on stdout, in
 * order. A process of its own, so that its threads and memory are not ours. README.md beside this file has the protocol.
 */
import { createInterface } from 'node:readline';
import { getLlama, LlamaLogLevel } from 'node-llama-cpp';

/** Tokens a timed run is fed with: any will do, the work is the same. */
const fillers = (count, vocab) => Array.from({ length: count }, (_, i) => (i * 7919 + 1) % vocab);

/** The context and all that is asked of it. Its sequence 0 is empty between requests. */
class Peer {
  static async load({ gguf, threads, context = 1024, cache = 'f16', flashAttention = 'auto' }) {
    const llama = await getLlama({
      gpu: false,
      build: 'never',
      skipDownload: true,
      progressLogs: false,
      // 0: no limit of the library's own, so that a context gets exactly the threads it asks for.
      maxThreads: 0,
      logLevel: LlamaLogLevel.error,
      logger: (_level, message) => process.stderr.write(message.endsWith('\n') ? message : `${message}\n`),
    });
    const model = await llama.loadModel({ modelPath: gguf, gpuLayers: 0 });
    const type = { f16: 'F16', f32: 'F32', bf16: 'BF16', q8_0: 'Q8_0' }[cache];
    const made = await model.createContext({
      contextSize: context,
      batchSize: Math.min(512, context),
      threads,
      flashAttention,
      experimentalKvCacheKeyType: type,
      experimentalKvCacheValueType: type,
      failedCreationRemedy: false,
    });
    return new Peer(llama, made);
  }

  constructor(llama, context) {
    this.llama = llama;
    this.context = context;
    this.sequence = context.getSequence();
    // The library would set the first number of threads again before every batch of its own.
    context._reserveThreads = () => undefined;
    this.vocab = context.model.fileInfo.metadata.tokenizer.ggml.tokens.length;
  }

  describe() {
    return {
      threads: this.context._ctx.getThreads(),
      context: this.context.contextSize,
      vocab: this.vocab,
      system: this.llama.systemInfo,
      release: this.llama.llamaCppRelease.release,
    };
  }

  setThreads({ threads }) {
    this.context._ctx.setThreads(threads);
    return this.describe();
  }

  /** Logits after the prompt, all of them in the order of ids. */
  async logits({ prompt }) {
    this.checkPrompt(prompt, 0);
    await this.sequence.clearHistory();
    const { logits } = await this.next(prompt, { logits: true });
    const result = new Array(this.vocab).fill(null);
    for (const [token, logit] of logits) result[token] = logit;
    return { logits: result };
  }

  /** Greedy continuation, and per step the `top` highest logits. Does not stop at an end-of-text token. */
  async greedy({ prompt, tokens, top = 0 }) {
    this.checkPrompt(prompt, tokens);
    await this.sequence.clearHistory();
    const filter = { tokens: [], includeTop: Math.max(1, top) };
    const made = [];
    const tops = [];
    let input = prompt;
    while (made.length < tokens) {
      const { token, logits } = await this.next(input, {
        token: true,
        logits: { filter },
        options: { temperature: 0 },
      });
      made.push(token);
      tops.push([...logits].slice(0, top));
      input = [token];
    }
    return top > 0 ? { tokens: made, top: tops } : { tokens: made };
  }

  async next(input, generateNext) {
    const last = input.length - 1;
    const items = input.map((token, i) => (i === last ? [token, { generateNext }] : token));
    const results = await this.sequence.controlledEvaluate(items);
    return results[last].next;
  }

  /**
   * Time of `tokens` single-token evaluations after a prompt of `prompt` tokens, prompt not counted. `evaluate` asks
   * llama_decode directly, with logits and without sampling, as llama-bench's tg does; `generate` is the library's loop.
   * Stops early after `limitMs`, and says how many tokens it was.
   */
  async decode({ prompt = 1, tokens, path = 'evaluate', limitMs = Infinity }) {
    const ids = fillers(prompt + tokens, this.vocab);
    this.checkPrompt(ids, 0);
    await this.sequence.clearHistory();
    if (path === 'generate') return this.generate(ids.slice(0, prompt), tokens, limitMs);
    await this.evaluate(0, ids.slice(0, prompt));
    return this.timed(tokens, limitMs, (i) => this.evaluate(prompt + i, [ids[prompt + i]]));
  }

  async generate(prompt, tokens, limitMs) {
    const iterator = this.sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true });
    await iterator.next();
    const result = await this.timed(tokens, limitMs, () => iterator.next());
    await iterator.return();
    await this.sequence.clearHistory();
    return result;
  }

  async timed(tokens, limitMs, next) {
    const start = performance.now();
    let done = 0;
    let milliseconds = 0;
    while (done < tokens && milliseconds < limitMs) {
      await next(done);
      done += 1;
      milliseconds = performance.now() - start;
    }
    this.context._ctx.disposeSequence(0);
    return { milliseconds, tokens: done };
  }

  /** Time of one prompt of `tokens` tokens, in batches of at most 512. */
  async prefill({ tokens }) {
    const ids = fillers(tokens, this.vocab);
    this.checkPrompt(ids, 0);
    await this.sequence.clearHistory();
    const size = this.context.batchSize;
    const start = performance.now();
    for (let i = 0; i < ids.length; i += size) await this.evaluate(i, ids.slice(i, i + size));
    const milliseconds = performance.now() - start;
    this.context._ctx.disposeSequence(0);
    return { milliseconds, tokens };
  }

  /** Internals of the library (its version is pinned): below its queue and its locks, which cost more than a small model. */
  async evaluate(position, ids) {
    const { _ctx: native } = this.context;
    native.initBatch(ids.length);
    native.addToBatch(0, position, Uint32Array.from(ids), Uint32Array.of(ids.length - 1));
    await native.decodeBatch();
  }

  checkPrompt(prompt, more) {
    if (prompt.length === 0) throw new Error('the prompt is empty');
    const wrong = prompt.find((id) => !Number.isInteger(id) || id < 0 || id >= this.vocab);
    if (wrong !== undefined) throw new Error(`token ${wrong} is not in the vocabulary of ${this.vocab}`);
    if (prompt.length + more > this.context.contextSize) {
      throw new Error(`${prompt.length + more} tokens do not fit a context of ${this.context.contextSize}`);
    }
  }
}

let peer;

async function answer(request) {
  if (request.op === 'load') {
    peer = await Peer.load(request);
    return peer.describe();
  }
  if (peer === undefined) throw new Error('load a model first');
  switch (request.op) {
    case 'threads':
      return peer.setThreads(request);
    case 'logits':
      return peer.logits(request);
    case 'greedy':
      return peer.greedy(request);
    case 'decode':
      return peer.decode(request);
    case 'prefill':
      return peer.prefill(request);
    default:
      throw new Error(`unknown op ${JSON.stringify(request.op)}`);
  }
}

for await (const line of createInterface({ input: process.stdin })) {
  let reply;
  try {
    reply = { ok: true, result: await answer(JSON.parse(line)) };
  } catch (error) {
    reply = { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
  process.stdout.write(`${JSON.stringify(reply)}\n`);
}
process.exit(0);
