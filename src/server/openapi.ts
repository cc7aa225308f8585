/** The OpenAPI document: made of the schemas that requests are checked with, so that it says what is there. */
import { z } from 'zod';
import { chatSchema, completionSchema, detokenizeSchema, tokenizeSchema } from './schemas.js';
import type { ServerLimits } from './settings.js';

interface Route {
  readonly method: 'get' | 'post';
  readonly path: string;
  readonly summary: string;
  readonly body?: z.ZodType;
  /** Media types of the answer. */
  readonly answers?: readonly string[];
}

function routes(limits: ServerLimits): readonly Route[] {
  const events = ['application/json', 'text/event-stream'];
  return [
    { method: 'get', path: '/v1/models', summary: 'The models that are served' },
    { method: 'get', path: '/v1/models/{id}', summary: 'One of them' },
    {
      method: 'post',
      path: '/v1/chat/completions',
      summary: 'Answer a conversation',
      body: chatSchema(limits),
      answers: events,
    },
    {
      method: 'post',
      path: '/v1/completions',
      summary: 'Continue texts',
      body: completionSchema(limits),
      answers: events,
    },
    { method: 'post', path: '/tokenize', summary: 'Text to token ids', body: tokenizeSchema(limits) },
    { method: 'post', path: '/detokenize', summary: 'Token ids to text', body: detokenizeSchema },
    { method: 'get', path: '/health', summary: 'Whether requests are taken' },
    { method: 'get', path: '/health/ready', summary: 'The same' },
    { method: 'get', path: '/health/live', summary: 'Whether the process runs' },
    { method: 'get', path: '/metrics', summary: 'Metrics for Prometheus', answers: ['text/plain'] },
    { method: 'get', path: '/inspect/{id}', summary: 'What a model is, and what its kernel calls cost, simulated' },
    { method: 'get', path: '/inspect/{id}/counters', summary: 'What its kernels have counted' },
    { method: 'get', path: '/openapi.json', summary: 'This document' },
  ];
}

const errorSchema = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'code', 'param'],
      properties: {
        message: { type: 'string' },
        type: { type: 'string', enum: ['invalid_request_error', 'server_error'] },
        code: { type: 'string' },
        param: { type: ['string', 'null'] },
      },
    },
  },
};

export function openApiDocument(limits: ServerLimits): object {
  const paths: Record<string, Record<string, object>> = {};
  for (const route of routes(limits)) (paths[route.path] ??= {})[route.method] = operation(route);
  return {
    openapi: '3.1.0',
    info: { title: 'kloop', version: '1', description: 'The OpenAI API, as far as this server has it.' },
    paths,
    components: {
      schemas: { Error: errorSchema },
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
    },
  };
}

function operation({ path, summary, body, answers = ['application/json'] }: Route): object {
  const error = { 'application/json': { schema: { $ref: '#/components/schemas/Error' } } };
  return {
    summary,
    ...(path.includes('{id}')
      ? { parameters: [{ name: 'id', in: 'path', required: true, schema: { type: 'string' } }] }
      : {}),
    ...(path.startsWith('/health') ? {} : { security: [{ key: [] }, {}] }),
    ...(body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { 'application/json': { schema: z.toJSONSchema(body, { io: 'input' }) } },
          },
        }),
    responses: {
      200: { description: 'Done', content: Object.fromEntries(answers.map((type) => [type, {}])) },
      default: { description: 'An error', content: error },
    },
  };
}
