import { afterEach, describe, expect, it } from 'vitest';
import { fakeModel, slow } from '../../tests/support/server.js';
import { ServerMetrics } from './metrics.js';
import { RequestScope } from './request-scope.js';
import { ServedModel } from './served-model.js';
import { defaultLimits } from './settings.js';
import { completionRequest } from './text-request.js';
import { Texts } from './texts.js';

const served: ServedModel[] = [];
afterEach(() => Promise.all(served.splice(0).map((model) => model.close())));

function setUp(): { ask: (maxTokens: number) => { texts: Texts; scope: RequestScope } } {
  const model = new ServedModel(fakeModel({ ...slow, slots: 1 }).model, defaultLimits);
  served.push(model);
  const metrics = new ServerMetrics(() => [model]);
  return {
    ask: (maxTokens) => {
      const request = completionRequest(model, { model: 'fake', prompt: 'x', max_tokens: maxTokens }, defaultLimits);
      const scope = new RequestScope(60_000, new AbortController().signal);
      return { texts: new Texts(request, scope, metrics), scope };
    },
  };
}

describe('texts that are ended early', () => {
  it.each([
    ['deadline', 503, 'overloaded'],
    ['shutdown', 503, 'shutting_down'],
    ['client', 400, 'client_closed_request'],
  ] as const)('fail while they wait: %s', async (reason, status, code) => {
    const { ask } = setUp();
    const first = ask(100);
    const second = ask(100);
    second.scope.abort(reason);
    await expect(second.texts.all()).rejects.toMatchObject({ details: { status, code } });
    first.scope.abort('client');
    await expect(first.texts.all()).rejects.toMatchObject({ details: { code: 'client_closed_request' } });
  });

  it('are what there is, where it is the time that is over', async () => {
    const { texts, scope } = setUp().ask(150);
    const pieces: string[] = [];
    let reason = '';
    for await (const event of texts.events()) {
      if (event.kind === 'piece') pieces.push(event.piece.text);
      else reason = event.reason;
      scope.abort('deadline');
    }
    expect(reason).toBe('length');
    expect(pieces.join('').length).toBeLessThan(150);
  });

  it('are ended by who no longer listens', async () => {
    const { ask } = setUp();
    for await (const event of ask(190).texts.events()) {
      expect(event.kind).toBe('piece');
      break;
    }
    // The slot is free again soon.
    expect((await ask(3).texts.all())[0]).toMatchObject({ reason: 'length' });
    expect(served[0]!.pool.running).toBe(0);
  });
});
