import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { runLoad, type LoadOptions } from './load.js';
import { reportLines, reportOf } from './report.js';

let server: Server | undefined;
afterEach(() => server?.closeAllConnections());

interface Body {
  readonly prompt: readonly number[];
  readonly max_tokens: number;
}

/** Answers with `pieces` pieces of text and the usage, or breaks off after the first of them. */
async function serve(
  pieces: number,
  broken: (body: Body) => boolean = () => false,
): Promise<{ url: string; most: () => number }> {
  let open = 0;
  let most = 0;
  server = createServer((request, response) => {
    void (async () => {
      most = Math.max(most, ++open);
      const body = JSON.parse(await textOf(request)) as Body;
      const send = (data: object): boolean => response.write(`data: ${JSON.stringify(data)}\n\n`);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      for (let i = 0; i < pieces; i++) {
        send({ choices: [{ text: 'x' }] });
        await new Promise((resolve) => setTimeout(resolve, 1));
        if (broken(body)) {
          response.end();
          open--;
          return;
        }
      }
      send({ choices: [], usage: { prompt_tokens: body.prompt.length, completion_tokens: body.max_tokens } });
      response.end('data: [DONE]\n\n');
      open--;
    })();
  });
  await new Promise<void>((resolve) => server!.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, most: () => most };
}

async function textOf(request: IncomingMessage): Promise<string> {
  let text = '';
  for await (const piece of request) text += String(piece);
  return text;
}

const options: Omit<LoadOptions, 'url'> = {
  ...{ model: 'm', requests: 12, streams: 3, inputTokens: 5, outputTokens: 8, vocab: 100, seed: 1 },
};

describe('a load run', () => {
  it('counts what came, and never has more requests under way than streams', async () => {
    const { url, most } = await serve(4);
    const result = await runLoad({ ...options, url });
    const report = reportOf(result);
    expect(report).toMatchObject({ successful: 12, failed: 0, inputTokens: 60, outputTokens: 96 });
    expect(most()).toBe(3);
    expect(report.outputThroughput).toBeCloseTo(96 / result.seconds, 9);
    for (const { firstTokenMs, latencyMs, gapsMs } of result.requests) {
      expect(gapsMs).toHaveLength(3);
      expect(firstTokenMs + gapsMs.reduce((a, b) => a + b, 0)).toBeCloseTo(latencyMs, 6);
    }
  });

  it('reports a stream that breaks off as failed', async () => {
    const { url } = await serve(4, ({ prompt }) => prompt[0]! % 2 === 0);
    const { successful, failed, error } = reportOf(await runLoad({ ...options, url }));
    expect(successful + failed).toBe(12);
    expect(failed).toBeGreaterThan(0);
    expect(error).toBe('the stream ended early');
  });

  it('lets requests arrive at a rate', async () => {
    const { url } = await serve(1);
    const { seconds } = await runLoad({ ...options, url, requests: 6, streams: 6, rate: 100 });
    // Five exponential gaps of 10 ms each on average, always the same ones.
    expect(seconds).toBeGreaterThan(0.02);
  });
});

describe('the block', () => {
  it('is that of vllm bench serve', () => {
    const request = { inputTokens: 10, outputTokens: 5, firstTokenMs: 20, latencyMs: 60, gapsMs: [10, 10, 10, 10] };
    const lines = reportLines(reportOf({ seconds: 2, requests: [request, { ...request, firstTokenMs: 40 }] }));
    expect(lines).toEqual([
      '============ Serving Benchmark Result ============',
      'Successful requests:                     2',
      'Failed requests:                         0',
      'Benchmark duration (s):                  2.00',
      'Total input tokens:                      20',
      'Total generated tokens:                  10',
      'Request throughput (req/s):              1.00',
      'Output token throughput (tok/s):         5.00',
      'Total Token throughput (tok/s):          15.00',
      '---------------Time to First Token----------------',
      'Mean TTFT (ms):                          30.00',
      'Median TTFT (ms):                        30.00',
      'P99 TTFT (ms):                           40.00',
      '-----Time per Output Token (excl. 1st token)------',
      'Mean TPOT (ms):                          7.50',
      'Median TPOT (ms):                        7.50',
      'P99 TPOT (ms):                           10.00',
      '---------------Inter-token Latency----------------',
      'Mean ITL (ms):                           10.00',
      'Median ITL (ms):                         10.00',
      'P99 ITL (ms):                            10.00',
      '==================================================',
    ]);
  });
});
