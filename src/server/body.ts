/** Reads the body of a request, bounded, as JSON. */
import { messageOf } from '../util/errors.js';
import { ApiError, badRequest } from './api-error.js';

/** Throws ApiError: 413 beyond `maxBytes`, 400 where it breaks off or is no JSON. */
export async function readJson(request: Request, maxBytes: number): Promise<unknown> {
  const text = await readText(request, maxBytes);
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw badRequest(`the body is not JSON: ${messageOf(error).slice(0, 200)}`, undefined, 'invalid_json');
  }
}

async function readText(request: Request, maxBytes: number): Promise<string> {
  const tooLarge = (): ApiError =>
    new ApiError(`the body is larger than ${maxBytes} bytes`, { status: 413, code: 'request_too_large' });
  if (Number(request.headers.get('content-length') ?? 0) > maxBytes) throw tooLarge();
  const reader = request.body?.getReader();
  if (reader === undefined) return '';
  const parts: Uint8Array[] = [];
  let bytes = 0;
  for (;;) {
    const { done, value } = await readPart(reader);
    if (done) return Buffer.concat(parts).toString('utf8');
    bytes += value.length;
    if (bytes > maxBytes) throw tooLarge();
    parts.push(value);
  }
}

type Reader = ReadableStreamDefaultReader<Uint8Array>;

async function readPart(reader: Reader): ReturnType<Reader['read']> {
  try {
    return await reader.read();
  } catch (error) {
    throw new ApiError('the body broke off', { status: 400, code: 'incomplete_body' }, { cause: error });
  }
}
