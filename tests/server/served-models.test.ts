/** Models that come when they are asked for, and go when nobody asks any more or the room is needed. */
import { pino } from 'pino';
import { describe, expect, it } from 'vitest';
import type { Model } from '../../src/runtime/model.js';
import { ServedModels, type ModelSource } from '../../src/server/served-models.js';
import { defaultLimits } from '../../src/server/settings.js';
import { CheckpointError } from '../../src/util/errors.js';
import { fakeModel, serveModels, slow } from '../support/server.js';

interface Watched extends ModelSource {
  readonly loads: () => number;
  readonly executables: { closed: boolean }[];
}

/** A source that counts; `before` is waited for by every load. */
function watched(name: string, bytes = 100, before: () => Promise<unknown> = () => Promise.resolve()): Watched {
  const executables: { closed: boolean }[] = [];
  return {
    ...{ name, bytes, context: 200, executables },
    loads: () => executables.length,
    load: async (signal): Promise<Model> => {
      await before();
      signal.throwIfAborted();
      const { model, executable } = fakeModel();
      executables.push(executable);
      return model;
    },
  };
}

/** Free memory is what is left of `room` by the models that are loaded. */
function modelsOf(sources: readonly Watched[], { room = 1000, idleMs = 0 } = {}): ServedModels {
  const taken = (): number =>
    sources.reduce(
      (sum, { bytes, executables }) => sum + bytes * executables.filter(({ closed }) => !closed).length,
      0,
    );
  const log = pino({ level: 'silent' });
  return new ServedModels(sources, { limits: defaultLimits, log, idleMs, freeBytes: () => room - taken() });
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('models of a server', () => {
  it('load when they are asked for, once for all who wait', async () => {
    const [a, b] = [watched('a', 100, () => pause(20)), watched('b')];
    const models = modelsOf([a, b]);
    expect(models.all.map(({ loaded }) => loaded)).toEqual([false, false]);
    const leases = await Promise.all([models.use('a'), models.use('a'), models.use('a')]);
    expect([a.loads(), b.loads()]).toEqual([1, 0]);
    expect(new Set(leases.map(({ served }) => served)).size).toBe(1);
    await models.close();
    expect(a.executables[0]!.closed).toBe(true);
  });

  it('make room for others, those unused for longest first, and never one in use', async () => {
    const sources = ['a', 'b', 'c'].map((name) => watched(name, 400));
    const models = modelsOf(sources);
    for (const name of ['a', 'b']) await models.with(name, () => undefined);
    await models.with('a', () => pause(2));
    await models.with('c', () => undefined);
    expect(models.all.map(({ loaded }) => loaded)).toEqual([true, false, true]);
    const { release } = await models.use('a');
    await models.with('b', () => undefined);
    expect(models.all.map(({ loaded }) => loaded)).toEqual([true, true, false]);
    const other = await models.use('b');
    await expect(models.use('c')).rejects.toMatchObject({
      message: 'the model c needs 400 B of memory, and 200 B are free',
      details: { status: 503, code: 'out_of_memory' },
    });
    release();
    other.release();
    other.release();
    await models.with('c', () => undefined);
    await models.close();
  });

  it('go after a while without a request, and come again', async () => {
    const a = watched('a');
    const models = modelsOf([a], { idleMs: 30 });
    const { release } = await models.use('a');
    await pause(60);
    expect(models.loaded).toHaveLength(1);
    release();
    await pause(80);
    expect(models.loaded).toHaveLength(0);
    expect(a.executables[0]!.closed).toBe(true);
    await models.with('a', () => undefined);
    expect(a.loads()).toBe(2);
    await models.close();
  });

  it('go, too, where all who asked have left before they came', async () => {
    let loaded = (): void => undefined;
    const a = watched('a', 100, () => new Promise<void>((resolve) => (loaded = resolve)));
    const models = modelsOf([a], { idleMs: 20 });
    await expect(models.use('a', AbortSignal.abort(new Error('left')))).rejects.toThrow('left');
    await pause(0);
    loaded();
    await expect.poll(() => a.executables.map(({ closed }) => closed)).toEqual([true]);
    await models.close();
  });

  it('are waited for where they go just when they are asked for', async () => {
    const a = watched('a', 100);
    const models = modelsOf([a], { room: 150, idleMs: 10 });
    const { served, release } = await models.use('a');
    let close = (): void => undefined;
    const closing = new Promise<void>((resolve) => (close = resolve));
    const { model } = served;
    const closed = model.close.bind(model);
    model.close = () => closing.then(closed);
    release();
    await expect.poll(() => models.loaded.length).toBe(0);
    const again = models.use('a');
    setTimeout(close, 20);
    (await again).release();
    await models.close();
  });

  it('can fail to load, tell no path, and are tried again', async () => {
    let gone = true;
    const a = watched('a', 100, () =>
      gone ? Promise.reject(new CheckpointError('/secret/model.safetensors', 'does not exist')) : Promise.resolve(),
    );
    const models = modelsOf([a]);
    await expect(models.use('a')).rejects.toMatchObject({
      message: 'the model a could not be loaded; the log says why',
      details: { status: 503, code: 'model_not_loaded' },
    });
    gone = false;
    await models.with('a', ({ id }) => expect(id).toBe('fake'));
    await models.close();
  });

  it('end with the server, whatever they were doing', async () => {
    const a = watched('a', 100, () => pause(30));
    const models = modelsOf([a]);
    const asking = expect(models.use('a')).rejects.toMatchObject({ details: { status: 503 } });
    await pause(5);
    await models.close();
    await asking;
    expect(a.loads()).toBe(0);
    await expect(models.use('a')).rejects.toMatchObject({ details: { code: 'shutting_down' } });
  });

  it('are listed before they are loaded, and answer over HTTP', async () => {
    const a = watched('one');
    const server = await serveModels([a, watched('two')]);
    const list = async (): Promise<unknown> =>
      ((await (await server.get('/v1/models')).json()) as { data: readonly object[] }).data;
    expect(await list()).toMatchObject([
      { id: 'one', max_model_len: 200, loaded: false },
      { id: 'two', loaded: false },
    ]);
    const response = await server.post('/v1/completions', { model: 'one', prompt: 'hello', max_tokens: 3 });
    expect(response.status).toBe(200);
    expect(await list()).toMatchObject([{ loaded: true }, { loaded: false }]);
    const other = await server.post('/v1/completions', { model: 'three', prompt: 'hello' });
    expect(other.status).toBe(404);
    await server.server.close();
    expect(a.executables[0]!.closed).toBe(true);
  });

  it('hold nobody who has left, and no end of the server, while they load', async () => {
    // A load that does not hear when it is told to stop, as a compiler may not.
    let loaded = (): void => undefined;
    const loading = new Promise<void>((resolve) => (loaded = resolve));
    const a = watched('one', 100, () => loading);
    const server = await serveModels([a]);
    const controller = new AbortController();
    const ask = { model: 'one', prompt: 'hello', max_tokens: 3 };
    const left = server.post('/v1/completions', ask, { signal: controller.signal }).catch(() => undefined);
    const waiting = server.post('/v1/completions', ask);
    await expect.poll(() => server.server.inFlight).toBe(2);
    controller.abort();
    await left;
    await expect.poll(() => server.server.inFlight).toBe(1);
    const closing = server.server.close(0);
    const answer = await waiting;
    expect([answer.status, await answer.json()]).toMatchObject([503, { error: { code: 'shutting_down' } }]);
    loaded();
    await closing;
    expect(a.executables.map(({ closed }) => closed)).toEqual([true]);
  });

  it('leave no numbers behind when they go', async () => {
    const source = { name: 'fake', bytes: 1, context: 200, load: () => Promise.resolve(fakeModel(slow).model) };
    const server = await serveModels([source], { idleMs: 20 });
    const metrics = async (): Promise<string> => (await server.get('/metrics')).text();
    const answering = server.post('/v1/completions', { model: 'fake', prompt: 'hello', max_tokens: 100 });
    await expect.poll(metrics).toContain('num_requests_running{model_name="fake"} 1');
    await (await answering).text();
    await expect.poll(metrics).not.toMatch(/^kloop:(num_requests|kv_cache|kernel_calls).*fake/m);
    await server.server.close();
  });
});
