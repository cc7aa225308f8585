/** Bodies made from the document that the server gives of itself: whatever they say, the answer is one or an error. */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { valuesOf, type JsonSchema } from '../support/json-schema-values.js';
import { fakeModel, serveModels, toolTemplate, type TestServer } from '../support/server.js';

let server: TestServer;
beforeAll(async () => {
  server = await serveModels([fakeModel({ slots: 8, context: 300, chat: toolTemplate }).model]);
});
afterAll(() => server.server.close());

interface Document {
  readonly paths: Record<string, { post?: { requestBody: { content: Record<string, { schema: JsonSchema }> } } }>;
}

it('answers every body that its OpenAPI document describes, and what comes close', async () => {
  const { paths } = (await (await server.get('/openapi.json')).json()) as Document;
  const routes = Object.entries(paths).flatMap(([path, { post }]) => {
    const schema = post?.requestBody.content['application/json']?.schema;
    return schema === undefined ? [] : [{ path, schema }];
  });
  expect(routes.map(({ path }) => path)).toContain('/v1/chat/completions');
  const requests = fc.oneof(
    ...routes.map(({ path, schema }) =>
      fc.tuple(
        fc.constant(path),
        // Of parameters that all are optional, a few at a time: with all of them something is always wrong.
        fc
          .tuple(valuesOf(schema), fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }))
          .map(([body, keep]) => few(body, schema, keep)),
      ),
    ),
  );
  const seen = new Map<number, number>();
  await fc.assert(
    fc.asyncProperty(requests, async ([path, body]) => {
      const response = await server.post(path, JSON.stringify(body));
      const text = await response.text();
      seen.set(response.status, (seen.get(response.status) ?? 0) + 1);
      expect(response.status, text).toBeLessThan(500);
      if (response.status >= 400) expect(JSON.parse(text)).toMatchObject({ error: { type: 'invalid_request_error' } });
      else if (!text.startsWith('data: ')) expect(() => JSON.parse(text) as unknown).not.toThrow();
      else expect(text).toMatch(/data: \[DONE\]\n\n$/);
    }),
    { numRuns: 100 },
  );
  // Neither all good nor all bad.
  expect(seen.get(200)).toBeGreaterThan(10);
  expect(seen.get(400)).toBeGreaterThan(10);
  await expect.poll(() => server.server.inFlight).toBe(0);
}, 60_000);

function few(body: unknown, schema: JsonSchema, keep: readonly boolean[]): unknown {
  if (typeof body !== 'object' || body === null) return body;
  const required = (schema['required'] ?? []) as string[];
  const fields = Object.entries(body).filter(
    ([name], i) => required.includes(name) || (i % 3 === 0 && keep[i] === true),
  );
  return Object.fromEntries([...fields, ['model', 'fake']]);
}
