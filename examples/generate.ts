/**
 * Makes a text with the library: streams it as it is made, stops on Ctrl+C, goes on with the same session, and says what
 * it took. Arguments: a model (default: the bundled demo) and the beginning of a text.
 */
import { loadModel, metricsOf } from 'kloop';

const [spec = 'demo', prompt = 'Once upon a time'] = process.argv.slice(2);

const interrupt = new AbortController();
process.once('SIGINT', () => interrupt.abort());

const model = await loadModel(spec, { onNotice: (line) => console.error(line) });
try {
  const session = model.session();

  const generation = session.generate(prompt, { maxTokens: 60, signal: interrupt.signal });
  process.stdout.write(prompt);
  for await (const { text } of generation) process.stdout.write(text);
  const { tokens, promptTokens, finishReason } = await generation.result;
  console.log(`\n\n${tokens.length} tokens, then ${finishReason}`);

  // The session remembers: only what is new is computed. Another seed or temperature makes another ending.
  const second = await session.generate([...promptTokens, ...tokens], {
    maxTokens: 40,
    temperature: 0.8,
    seed: 7,
    stop: ['\n'],
    signal: interrupt.signal,
  }).result;
  console.log(`\n...${second.text}\n`);
  console.log(`${second.cachedTokens} of ${second.promptTokens.length} prompt tokens were in the cache`);

  const { tokensPerSecond, kernelCallsPerToken } = metricsOf(second);
  console.log(
    `${tokensPerSecond?.toFixed(0) ?? '?'} tokens/s, ${kernelCallsPerToken?.toFixed(2) ?? '?'} kernel calls per token`,
  );
  await session.close();
} finally {
  await model.close();
}
