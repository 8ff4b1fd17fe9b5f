import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { passableHeaders } from './upstream.ts';

/** Whose events a stream holds: those of completions and chat, or of one of the surfaces with named events. */
export type Surface = 'completions' | 'messages' | 'responses';

/** Error body in vLLM's shape. */
export function errorBody(status: number, type: string, message: string, param: string | null = null): string {
  return JSON.stringify({ error: { message, type, param, code: status } });
}

/**
 * Those who want to know that a connection has closed. One listener a connection: a client may have many requests on
 * it.
 */
const watchers = new WeakMap<Socket, Set<() => void>>();

function watchersOf(socket: Socket): Set<() => void> {
  const known = watchers.get(socket);
  if (known) return known;
  const made = new Set<() => void>();
  watchers.set(socket, made);
  socket.once('close', () => {
    for (const gone of made) gone();
  });
  return made;
}

/**
 * The client's side of one request: an answer that is begun late, so that until then another instance may still give
 * it.
 */
export class ClientAnswer {
  readonly response: ServerResponse;
  /**
   * the request's connection: an answer that waits behind another of the same connection has none yet, and no `close`
   * of its own
   */
  private readonly socket: Socket;
  private flushed = false;

  constructor(response: ServerResponse) {
    this.response = response;
    this.socket = response.req.socket;
  }

  /** True once status and headers have gone out: from then on the answer is this instance's or broken. */
  get begun(): boolean {
    return this.response.headersSent;
  }

  get gone(): boolean {
    return this.response.destroyed || this.response.writableEnded || this.socket.destroyed;
  }

  /**
   * Bytes on its connection that the client has accepted so far; never the same twice while the answer has not had its
   * turn on the connection.
   */
  get acceptedBytes(): number {
    const { socket } = this.response;
    return socket ? socket.bytesWritten - socket.writableLength : Number.NaN;
  }

  /** All of it has been handed to the system. */
  get finished(): boolean {
    return this.response.writableFinished;
  }

  /** `onGone`: the client has left, or its answer is over. `onDrain`: it reads on. */
  watch(onGone: () => void, onDrain: () => void): void {
    this.response.on('close', onGone);
    this.response.on('drain', onDrain);
    watchersOf(this.socket).add(onGone);
  }

  unwatch(onGone: () => void, onDrain: () => void): void {
    this.response.off('close', onGone);
    this.response.off('drain', onDrain);
    watchers.get(this.socket)?.delete(onGone);
  }

  begin(status: number, headers: IncomingHttpHeaders, extra: Record<string, string>): void {
    this.response.writeHead(status, { ...passableHeaders(headers), ...extra });
  }

  /** False asks the source to pause until the client has read on. */
  write(chunk: Buffer): boolean {
    const goOn = this.response.write(chunk);
    // Node holds what is written until the end of the tick; the first token does not wait for what else this tick has
    // to do.
    if (!this.flushed) this.response.socket?.uncork();
    this.flushed = true;
    return goOn;
  }

  end(): void {
    this.response.end();
  }

  /** An error instead of an answer, in vLLM's shape. Only before `begin`. */
  fail(
    status: number,
    type: string,
    message: string,
    options: { param?: string | null; headers?: Record<string, string> } = {},
  ): void {
    if (this.gone || this.begun) return;
    const body = errorBody(status, type, message, options.param ?? null);
    this.response.writeHead(status, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      ...options.headers,
    });
    this.response.end(body);
  }

  /** Closes the connection in the middle of the answer, so that nobody takes half of it for the whole. */
  cut(): void {
    (this.response.socket ?? this.socket).destroy();
  }

  /**
   * Ends an answer of a door that is not whole: with trailers that say so where it is chunked and its reader is known to
   * look at them, else by a cut.
   */
  breakOff(trailers: Record<string, string> | undefined): void {
    if (!trailers || !this.response.chunkedEncoding) return this.cut();
    this.response.addTrailers(trailers);
    this.response.end();
  }

  /** Ends a stream that has begun with an error event. What was written before must end with a whole event. */
  endWithError(message: string, surface: Surface, events: number): void {
    if (!this.gone) this.response.end(errorEvent(message, surface, events));
  }
}

/**
 * An error event as vLLM ends streams of this surface itself: clients raise it. `events`: those before it, which
 * /v1/responses numbers.
 */
function errorEvent(message: string, surface: Surface, events: number): string {
  const named = (data: object): string => `event: error\ndata: ${JSON.stringify(data)}\n\n`;
  if (surface === 'messages') return named({ type: 'error', error: { type: 'api_error', message } });
  if (surface === 'responses') {
    const error = { message, type: 'BadGatewayError', param: null, code: 502 };
    return named({ type: 'error', code: 'server_error', message, param: null, sequence_number: events, error });
  }
  return `data: ${errorBody(502, 'BadGatewayError', message)}\n\ndata: [DONE]\n\n`;
}
