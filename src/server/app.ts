/** The routes of the server, without the socket: every answer is JSON or a stream of events, errors included. */
import { randomUUID } from 'node:crypto';
import { Hono, type Context, type MiddlewareHandler } from 'hono';
import { matchedRoutes } from 'hono/route';
import type { Logger } from 'pino';
import type { Machine } from '../simulator/machine.js';
import { answer, logFailure, type AppEnv } from './answer.js';
import { chatFormat, completionFormat } from './answer-format.js';
import { ApiError, badRequest, toApiError } from './api-error.js';
import { readJson } from './body.js';
import { guard } from './guard.js';
import { addInspection } from './inspect.js';
import type { ServerMetrics } from './metrics.js';
import { openApiDocument } from './openapi.js';
import { addPage } from './page.js';
import type { RequestScope, RequestScopes } from './request-scope.js';
import { chatSchema, completionSchema, detokenizeSchema, parseBody, tokenizeSchema } from './schemas.js';
import type { ModelEntry, ServedModels } from './served-models.js';
import type { Access, ServerLimits } from './settings.js';
import { chatPrompt, chatRequest, completionRequest } from './text-request.js';

export interface AppParts {
  readonly models: ServedModels;
  readonly access: Access;
  readonly limits: ServerLimits;
  readonly metrics: ServerMetrics;
  readonly scopes: RequestScopes;
  readonly log: Logger;
  /** The server ends: it takes no new requests. */
  readonly draining: () => boolean;
  /** This machine, where `kloop calibrate` has measured it. */
  readonly hostMachine: Machine | undefined;
}

export function createApp(parts: AppParts): Hono<AppEnv> {
  const { access, limits, models } = parts;
  const app = new Hono<AppEnv>();
  app.onError((error, context) => sendError(context, toApiError(error)));
  app.use(observe(parts), guard(access));
  addPage(app);
  addInspection(app, models, parts.hostMachine);
  addOperations(app, parts);
  app.get('/v1/models', (context) => context.json({ object: 'list', data: models.all.map(modelObject) }));
  app.get('/v1/models/:id{.+}', (context) => context.json(modelObject(models.find(context.req.param('id')))));
  app.get('/openapi.json', (context) => context.json(openApiDocument(limits)));
  addTexts(app, parts);
  addTokens(app, parts);
  app.notFound((context) => {
    const { method, path } = context.req;
    const others = app.routes.filter((route) => route.path === path && route.method !== 'ALL');
    const methods = [...new Set(others.map((route) => route.method))];
    const isKnown = methods.length > 0;
    if (isKnown) context.header('Allow', methods.join(', '));
    const details = isKnown
      ? ({ status: 405, code: 'method_not_allowed' } as const)
      : ({ status: 404, code: 'not_found' } as const);
    const instead = isKnown ? `use ${methods.join(' or ')}` : '/openapi.json lists what there is';
    return sendError(context, new ApiError(`there is no ${method} ${path.slice(0, 200)} here; ${instead}`, details));
  });
  return app;

  function sendError(context: Context<AppEnv>, error: ApiError): Response {
    logFailure(context, error);
    const { status, retryAfter } = error.details;
    if (retryAfter !== undefined) context.header('Retry-After', String(retryAfter));
    if (status === 401) context.header('WWW-Authenticate', 'Bearer');
    return context.json(error.body, status);
  }
}

/** The pattern that matched; `/*`, that of the checks before, where none did. */
function routeOf(context: Context<AppEnv>): string {
  return matchedRoutes(context).at(-1)?.path ?? '';
}

/** Gives every request an id, and logs what became of it. */
function observe({ log, metrics, draining }: AppParts): MiddlewareHandler<AppEnv> {
  return async (context, next) => {
    const startMs = performance.now();
    const given = context.req.header('x-request-id') ?? '';
    const requestId = /^[\w.-]{1,128}$/.test(given) ? given : randomUUID();
    context.set('requestId', requestId);
    context.set('log', log.child({ request_id: requestId }));
    context.header('X-Request-Id', requestId);
    if (draining()) context.header('Connection', 'close');
    await next();
    const { status } = context.res;
    metrics.responded(routeOf(context), status);
    const { method, path } = context.req;
    const ms = Math.round(performance.now() - startMs);
    context.get('log').info({ method, path: path.slice(0, 200), status, ms }, 'request');
  };
}

/** Health and metrics. */
function addOperations(app: Hono<AppEnv>, { draining, metrics }: AppParts): void {
  const ready = (context: Context<AppEnv>): Response =>
    draining() ? context.json({ status: 'draining' }, 503) : context.json({ status: 'ok' });
  app.get('/health', ready);
  app.get('/health/ready', ready);
  app.get('/health/live', (context) => context.json({ status: 'ok' }));
  app.get('/metrics', async (context) =>
    context.body(await metrics.text(), 200, { 'Content-Type': metrics.contentType }),
  );
}

/** The routes that make text. */
function addTexts(app: Hono<AppEnv>, parts: AppParts): void {
  const { models, limits, metrics, scopes, draining } = parts;
  const [chat, completion] = [chatSchema(limits), completionSchema(limits)];

  /** Runs the handler of one request in a scope, which ends with it unless the answer is a stream. */
  const scoped = async (
    context: Context<AppEnv>,
    work: (scope: RequestScope) => Promise<Response>,
  ): Promise<Response> => {
    refuseWhere(draining(), context);
    const scope = scopes.open(limits.requestMs, context.req.raw.signal);
    try {
      return await work(scope);
    } catch (error) {
      scope.end();
      throw error;
    }
  };

  app.post('/v1/chat/completions', (context) =>
    scoped(context, async (scope) => {
      const body = parseBody(chat, await readJson(context.req.raw, limits.bodyBytes));
      const { served, release } = await models.use(body.model, scope.signal);
      scope.defer(release);
      const request = await chatRequest(served, body, limits);
      scope.defer(() => request.grammar?.release());
      return retryHint(served, () =>
        answer(context, request, { format: chatFormat, scope, metrics, stallMs: limits.stallMs }),
      );
    }),
  );
  app.post('/v1/completions', (context) =>
    scoped(context, async (scope) => {
      const body = parseBody(completion, await readJson(context.req.raw, limits.bodyBytes));
      const { served, release } = await models.use(body.model, scope.signal);
      scope.defer(release);
      const request = completionRequest(served, body, limits);
      return retryHint(served, () =>
        answer(context, request, { format: completionFormat, scope, metrics, stallMs: limits.stallMs }),
      );
    }),
  );
}

async function retryHint<T>(served: { readonly retryAfter: number }, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw toApiError(error, served.retryAfter);
  }
}

/** Throws ApiError 503 where the server ends. Whoever asks again is to find another one, on another connection. */
function refuseWhere(draining: boolean, context: Context<AppEnv>): void {
  if (!draining) return;
  context.header('Connection', 'close');
  throw new ApiError('the server is shutting down', { status: 503, code: 'shutting_down', retryAfter: 1 });
}

/** The routes that show what the tokenizer does. */
function addTokens(app: Hono<AppEnv>, { models, limits, draining }: AppParts): void {
  const tokenize = tokenizeSchema(limits);
  app.post('/tokenize', async (context) => {
    refuseWhere(draining(), context);
    const body = parseBody(tokenize, await readJson(context.req.raw, limits.bodyBytes));
    const { prompt, messages } = body;
    const isText = typeof prompt === 'string';
    if (isText === Array.isArray(messages)) throw badRequest('give either prompt or messages', 'prompt');
    return models.with(body.model, async ({ model }) => {
      const tokens = isText
        ? model.tokenizer.encode(prompt, { addSpecial: body.add_special_tokens ?? true })
        : await chatPrompt(
            model,
            { messages: messages ?? [], chat_template_kwargs: body.chat_template_kwargs },
            { addGenerationPrompt: body.add_generation_prompt ?? true },
          );
      return context.json({ tokens, count: tokens.length, max_model_len: model.limits.context });
    });
  });
  app.post('/detokenize', async (context) => {
    refuseWhere(draining(), context);
    const body = parseBody(detokenizeSchema, await readJson(context.req.raw, limits.bodyBytes));
    const prompt = await models.with(body.model, ({ model }) =>
      model.tokenizer.decode(body.tokens, { skipSpecial: false }),
    );
    return context.json({ prompt });
  });
}

function modelObject({ id, created, context, loaded }: ModelEntry): object {
  return { id, object: 'model', created, owned_by: 'kloop', max_model_len: context, loaded };
}
