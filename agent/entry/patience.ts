import type { IncomingHttpHeaders } from 'node:http';

/** How long a request may take, and when its client will have left by itself. Clock ms; Infinity: never. */
export interface Patience {
  /** the whole request ends then */
  readonly deadlineMs: number;
  /** whose limit that is */
  readonly deadline: 'client-deadline' | 'operator-deadline';
  /**
   * the client leaves then unless it has had a byte. It ends no attempt, but another whose first byte cannot come in
   * time is not begun.
   */
  readonly firstByteByMs: number;
}

export const REQUEST_TIMEOUT_HEADER = 'x-request-timeout-ms';

/**
 * Reads the limits of one request. `requestTimeoutMs`: the operator's, 0 for none. The official SDKs tell their own in
 * `x-stainless-timeout` (JavaScript: whole seconds until the headers, 0 where it is not known) and
 * `x-stainless-read-timeout` (Python: seconds between two bytes). Undefined where the client's own limit is not a
 * number of milliseconds above 0.
 */
export function patienceOf(
  headers: IncomingHttpHeaders,
  nowMs: number,
  requestTimeoutMs: number,
): Patience | undefined {
  const own = headers[REQUEST_TIMEOUT_HEADER];
  const ownMs = own === undefined ? Infinity : Number(own);
  if (!(ownMs > 0)) return undefined;
  const operatorMs = requestTimeoutMs > 0 ? requestTimeoutMs : Infinity;
  return {
    deadlineMs: nowMs + Math.min(ownMs, operatorMs),
    deadline: ownMs <= operatorMs ? 'client-deadline' : 'operator-deadline',
    firstByteByMs:
      nowMs +
      Math.min(secondsOf(headers['x-stainless-timeout']), secondsOf(headers['x-stainless-read-timeout'])) * 1000,
  };
}

function secondsOf(value: string | string[] | undefined): number {
  const seconds = Number(value);
  return seconds > 0 ? seconds : Infinity;
}
