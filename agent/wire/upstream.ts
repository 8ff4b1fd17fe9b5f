import { channel } from 'node:diagnostics_channel';
import type { IncomingHttpHeaders } from 'node:http';
import { Client, type Dispatcher, Pool } from 'undici';
import type { Clock } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { type AttemptFailure, type Failure, failureNamed } from './ending.ts';
import type { EventCutter, Usage } from './sse.ts';
import { FAILURE_HEADER, INTERNAL_HEADERS } from './hop.ts';

/** A request on its way to an instance. */
export interface UpstreamRequest {
  method: string;
  path: string;
  headers: Record<string, string | string[]>;
  /** its bytes in order, cut anywhere; never empty pieces */
  body: readonly Buffer[];
}

/** What a door in the same process has read of an answer, so that its entry need not read it again. */
export interface AnswerTold {
  readonly usage: Usage | undefined;
  /** bytes of a stream behind its last whole event */
  readonly rest: Buffer | undefined;
}

/** Receives the answer of one attempt: headers at most once, then data, then exactly one of end and failure. */
export interface AttemptHandler {
  onHeaders(status: number, headers: IncomingHttpHeaders): void;
  /**
   * false asks for a pause until `resume`. `cut`: the events in the chunk, where they are known already; valid during
   * the call
   */
  onData(chunk: Buffer, cut?: EventCutter): boolean;
  onEnd(told?: AnswerTold): void;
  onFailure(failure: AttemptFailure): void;
}

export interface Attempt {
  /**
   * Ends the attempt: the connection to the engine is closed at once, which makes vLLM abort the request. No handler is
   * called after it.
   */
  abort(): void;
  resume(): void;
}

// vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): ours are given up before, or a request meets a
// dying one.
const KEEP_ALIVE_MS = 4000;
/** A peer whose host has gone is found by the system's own probes from then on. */
const TCP_KEEPALIVE_MS = 15_000;
/** A break that comes later than this after sending is no longer that of a connection which was closed before. */
const STALE_WITHIN_MS = 1000;
const HOP_BY_HOP = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'expect',
]);

/**
 * Sockets that have carried a request. A peer may close one of them at any moment, so a break of it says nothing of the
 * peer.
 */
const usedSockets = new WeakSet<object>();
/** the delivery whose headers undici is about to write: it names neither the request nor its socket to handlers */
let starting: Delivery | undefined;
channel('undici:client:sendHeaders').subscribe((message) => {
  if (!starting) return;
  const { socket } = message as { socket: object };
  starting.onReused = usedSockets.has(socket);
  usedSockets.add(socket);
  starting = undefined;
});

function noteStart(delivery: Delivery): void {
  starting = delivery;
}

/** One HTTP peer, an engine or another agent's door, with its connections. */
export class Upstream {
  readonly url: string;
  private readonly clock: Clock;
  private readonly options: Pool.Options;
  private readonly pool: Pool;

  constructor(url: string, connectTimeoutMs: number, clock: Clock) {
    this.url = url;
    this.clock = clock;
    // How long to wait is decided on facts, not by timers of the connection.
    this.options = {
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: connectTimeoutMs, keepAliveInitialDelay: TCP_KEEPALIVE_MS },
    };
    this.pool = new Pool(url, this.options);
  }

  /**
   * Sends a request. Where a connection that has served before breaks ahead of any byte of the answer, the peer has
   * closed it in the meantime: the request is sent once more, on a fresh one. Throws what undici finds wrong with the
   * request itself.
   */
  dispatch(request: UpstreamRequest, handler: AttemptHandler): Attempt {
    const delivery = new Delivery(this.clock, handler, () => {
      const client = new Client(this.url, this.options);
      client.dispatch(toUndici(request), delivery);
      void client.close().catch(() => undefined);
    });
    this.pool.dispatch(toUndici(request), delivery);
    return delivery;
  }

  /** GET, bounded in time by the caller's signal and in size by `maxBytes`. Errors: as `ask`. */
  get(
    path: string,
    headers: Record<string, string>,
    signal: AbortSignal,
    maxBytes: number,
  ): Promise<{ status: number; body: Buffer }> {
    return this.ask({ method: 'GET', path, headers, body: [] }, signal, maxBytes);
  }

  /**
   * A whole answer, bounded in time by the caller's signal and in size by `maxBytes`. Errors: UPSTREAM_FAILED for a
   * larger body, undici's own.
   */
  async ask(
    request: UpstreamRequest,
    signal: AbortSignal,
    maxBytes: number,
  ): Promise<{ status: number; body: Buffer }> {
    const { method, path } = request;
    const answer = await this.pool.request({
      method: method as Dispatcher.HttpMethod,
      path,
      signal,
      ...payload(request),
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of answer.body) {
      bytes += (chunk as Buffer).length;
      // Leaving the loop destroys the body, and its connection with it.
      if (bytes > maxBytes) throw new LodestarError('UPSTREAM_FAILED', `${path} answered more than ${maxBytes} bytes`);
      chunks.push(chunk as Buffer);
    }
    return { status: answer.statusCode, body: Buffer.concat(chunks) };
  }

  /** Takes no further requests and closes when the running ones have ended. */
  retire(): Promise<void> {
    return this.pool.close();
  }

  close(): Promise<void> {
    return this.pool.destroy();
  }
}

/** One request on its way, with its answer. */
class Delivery implements Attempt, Dispatcher.DispatchHandler {
  /** its connection has carried a request before */
  onReused = false;
  private readonly clock: Clock;
  private readonly handler: AttemptHandler;
  private readonly again: () => void;
  private controller: Dispatcher.DispatchController | undefined;
  private startMs = 0;
  private answered = false;
  private retried = false;
  private over = false;

  constructor(clock: Clock, handler: AttemptHandler, again: () => void) {
    this.clock = clock;
    this.handler = handler;
    this.again = again;
  }

  abort(): void {
    if (this.over) return;
    this.over = true;
    this.controller?.abort(new Error('aborted'));
  }

  resume(): void {
    this.controller?.resume();
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    this.startMs = this.clock.nowMs();
    if (this.over) controller.abort(new Error('aborted'));
    else noteStart(this);
  }

  onResponseStart(_controller: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders): void {
    this.answered = true;
    if (!this.over && status >= 200) this.guard(() => this.handler.onHeaders(status, headers));
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.over) return;
    let goOn = true;
    this.guard(() => (goOn = this.handler.onData(chunk)));
    if (!goOn) controller.pause();
  }

  onResponseEnd(_controller: unknown, trailers: IncomingHttpHeaders = {}): void {
    if (this.over) return;
    // A door that ends an answer before it is whole says why behind it.
    const failure = trailers[FAILURE_HEADER];
    if (failure !== undefined)
      return this.fail(failureNamed(String(failure)), new Error(`the door reports: ${String(failure)}`));
    this.guard(() => this.handler.onEnd());
    this.over = true;
  }

  onResponseError(_controller: unknown, cause: Error): void {
    if (this.over) return;
    const isFresh = this.clock.nowMs() - this.startMs < STALE_WITHIN_MS;
    if (this.onReused && isFresh && !this.answered && !this.retried) {
      this.retried = true;
      this.controller = undefined;
      try {
        return this.again();
      } catch (error) {
        return this.fail('own-fault', error);
      }
    }
    this.fail(this.controller ? 'reset' : 'unreachable', cause);
  }

  /** An exception of ours must not pass as a broken connection. */
  private guard(call: () => void): void {
    try {
      call();
    } catch (error) {
      const { controller } = this;
      this.fail('own-fault', error);
      controller?.abort(new Error('aborted'));
    }
  }

  private fail(failure: Failure, cause: unknown): void {
    if (this.over) return;
    this.over = true;
    this.handler.onFailure({ failure, error: new LodestarError('UPSTREAM_FAILED', errorMessage(cause), { cause }) });
  }
}

function toUndici(request: UpstreamRequest): Dispatcher.DispatchOptions {
  return { method: request.method as Dispatcher.HttpMethod, path: request.path, ...payload(request) };
}

/**
 * Headers and body as undici takes them. Several pieces go out one after the other and are never joined; with their
 * length stated, undici does not send them chunked. Its types leave iterables out, its documentation does not.
 */
function payload({
  headers,
  body,
}: UpstreamRequest): Pick<Dispatcher.DispatchOptions, 'body'> & { headers: UpstreamRequest['headers'] } {
  const [first = null] = body;
  if (body.length <= 1) return { headers, body: first };
  const bytes = body.reduce((sum, piece) => sum + piece.length, 0);
  return { headers: { ...headers, 'content-length': String(bytes) }, body: body as unknown as Buffer };
}

/** Headers that may pass to the next hop: without those of this connection and those that only agents exchange. */
export function passableHeaders(headers: IncomingHttpHeaders): Record<string, string | string[]> {
  const out: Record<string, string | string[]> = {};
  for (const name in headers) {
    const value = headers[name];
    if (
      value === undefined ||
      HOP_BY_HOP.has(name) ||
      INTERNAL_HEADERS.has(name) ||
      name === 'host' ||
      name === 'content-length'
    )
      continue;
    out[name] = value;
  }
  return out;
}
