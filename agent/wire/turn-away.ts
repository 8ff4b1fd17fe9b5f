import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../shared/env.ts';
import { errorBody } from './client-answer.ts';

/**
 * How long a client whose body is not wanted may go on sending: closed at once, its connection would lose the answer.
 */
const LINGER_MS = 1000;

/**
 * Answers a request whose body is not, or not wholly, read, in vLLM's shape, and closes the connection. What the client
 * still sends until then is dropped.
 */
export function turnAway(
  clock: Clock,
  request: IncomingMessage,
  response: ServerResponse,
  { status, type, message }: { status: number; type: string; message: string },
  headers: Record<string, string> = {},
): void {
  const body = errorBody(status, type, message);
  const retryAfter = status === 503 ? { 'retry-after': '1' } : {};
  response.writeHead(status, {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
    ...retryAfter,
    ...headers,
  });
  response.write(body);
  const end = (): void => {
    timer.cancel();
    response.end();
  };
  const timer = clock.after(LINGER_MS, end);
  request
    .once('end', end)
    .once('close', end)
    .on('error', () => undefined);
  request.resume();
  if (request.readableEnded || request.destroyed) end();
}
