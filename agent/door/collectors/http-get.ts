import { request, type Dispatcher } from 'undici';
import type { Clock } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';

/** Who a collector asks, and how patiently. */
export interface GetOptions {
  dispatcher: Dispatcher;
  clock: Clock;
  timeoutMs: number;
  maxBytes: number;
  apiKey?: string | undefined;
}

/**
 * GET a whole body as text, bounded in time and size. Throws on connection errors, timeouts and bodies that are too
 * large, not on a status.
 */
export async function getText(url: string, options: GetOptions): Promise<{ status: number; text: string }> {
  const abort = new AbortController();
  const timer = options.clock.after(options.timeoutMs, () => {
    abort.abort(new LodestarError('UPSTREAM_TIMEOUT', `${url} did not answer within ${options.timeoutMs} ms`));
  });
  try {
    const headers = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` };
    const { statusCode, body } = await request(url, { dispatcher: options.dispatcher, headers, signal: abort.signal });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > options.maxBytes)
        throw new LodestarError('UPSTREAM_FAILED', `${url} answered more than ${options.maxBytes} bytes`);
      chunks.push(chunk);
    }
    return { status: statusCode, text: Buffer.concat(chunks).toString('utf8') };
  } finally {
    timer.cancel();
  }
}

/** Like `getText`, but a status other than 200 throws too. */
export async function getOk(url: string, options: GetOptions): Promise<string> {
  const { status, text } = await getText(url, options);
  if (status !== 200) throw new LodestarError('UPSTREAM_FAILED', `${url} answered ${status}`);
  return text;
}
