/**
 * Errors as clients of the OpenAI API know them: a status and `{ error: { message, type, code, param } }`. What went
 * wrong on our side is told without its details; those are in the log, under the id of the request.
 */
import { z } from 'zod';
import {
  AbortedError,
  CheckpointError,
  ContextOverflowError,
  messageOf,
  OverloadedError,
  TemplateError,
  UsageError,
} from '../util/errors.js';

export type ErrorStatus = 400 | 401 | 403 | 404 | 405 | 413 | 500 | 503;

export interface ErrorDetails {
  readonly status: ErrorStatus;
  /** For programs, such as `model_not_found`. */
  readonly code: string;
  /** The parameter that is at fault. */
  readonly param?: string;
  /** Seconds after which the same request may succeed. */
  readonly retryAfter?: number;
}

/** Shape of the answer. */
export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly code: string;
    readonly param: string | null;
  };
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly details: ErrorDetails,
    options: { cause?: unknown } = {},
  ) {
    super(message, options);
    this.name = 'ApiError';
  }

  get body(): ErrorBody {
    const { status, code, param = null } = this.details;
    const type = status >= 500 ? 'server_error' : 'invalid_request_error';
    return { error: { message: this.message, type, code, param } };
  }
}

/** A request that cannot be meant. */
export function badRequest(message: string, param?: string, code = 'invalid_value'): ApiError {
  return new ApiError(message, { status: 400, code, ...(param === undefined ? {} : { param }) });
}

/** Anything that was thrown. `retryAfter`: seconds, for a server that has too much to do. */
export function toApiError(error: unknown, retryAfter = 1): ApiError {
  if (error instanceof ApiError) return error;
  const message = messageOf(error);
  const make = (details: ErrorDetails): ApiError => new ApiError(message, details, { cause: error });
  if (error instanceof ContextOverflowError) return make({ status: 400, code: 'context_length_exceeded' });
  if (error instanceof OverloadedError) return make({ status: 503, code: 'overloaded', retryAfter });
  if (error instanceof TemplateError) return make({ status: 400, code: 'chat_template_failed', param: 'messages' });
  if (error instanceof UsageError) return make({ status: 400, code: 'invalid_value' });
  // The patterns of the tokenizer took unreasonably long on this text; the path of its file is nobody's business.
  if (error instanceof CheckpointError) {
    return new ApiError('the prompt could not be tokenized', { status: 400, code: 'invalid_value' }, { cause: error });
  }
  if (error instanceof AbortedError) {
    return new ApiError(
      'the server is shutting down',
      { status: 503, code: 'shutting_down', retryAfter },
      { cause: error },
    );
  }
  return new ApiError('internal error', { status: 500, code: 'internal_error' }, { cause: error });
}

/** The first problem that a schema found. */
export function fromZod({ issues }: z.ZodError): ApiError {
  const issue = issues[0] && innermost(issues[0]);
  if (issue === undefined) return badRequest('the body is not valid');
  if (issue.code === 'unrecognized_keys') {
    const param = [...issue.path.map(String), ...issue.keys.slice(0, 1)].join('.').slice(0, 100);
    return badRequest(`unknown parameter: ${param}`, param, 'unknown_parameter');
  }
  const param = issue.path.map(String).join('.').slice(0, 100);
  return param === '' ? badRequest(issue.message) : badRequest(`${param}: ${issue.message}`, param);
}

type Issue = z.ZodError['issues'][number];

/** Of a union, the problem of the one form that the value comes closest to: all others ended before. */
function innermost(issue: Issue): Issue {
  if (issue.code !== 'invalid_union') return issue;
  const inner = issue.errors.flatMap(([first]) => (first === undefined ? [] : [innermost(first)]));
  const depth = Math.max(0, ...inner.map(({ path }) => path.length));
  const [deepest, ...others] = inner.filter(({ path }) => path.length === depth);
  if (deepest === undefined || depth === 0 || others.length > 0) return issue;
  return { ...deepest, path: [...issue.path, ...deepest.path] };
}
