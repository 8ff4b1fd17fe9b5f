import type { IncomingHttpHeaders } from 'node:http';
import { type Dispatcher, Pool } from 'undici';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import { INTERNAL_HEADERS } from './hop.ts';

/** A request on its way to an instance. */
export interface UpstreamRequest {
  method: string;
  path: string;
  headers: Record<string, string | string[]>;
  /** its bytes in order, cut anywhere; never empty pieces */
  body: readonly Buffer[];
}

/** Receives the answer of one attempt: headers at most once, then data, then exactly one of end and error. */
export interface AttemptHandler {
  onHeaders(status: number, headers: IncomingHttpHeaders): void;
  /** false asks for a pause until `resume` */
  onData(chunk: Buffer): boolean;
  onEnd(): void;
  onError(error: LodestarError): void;
}

export interface Attempt {
  /** Ends the attempt: the connection to the engine is closed at once, which makes vLLM abort the request. No handler is called after it. */
  abort(): void;
  resume(): void;
}

// vLLM closes idle connections after 5 s (VLLM_HTTP_TIMEOUT_KEEP_ALIVE): ours are given up before, or a request meets a dying one.
const KEEP_ALIVE_MS = 4000;
const HOP_BY_HOP = new Set(['connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'te', 'trailer', 'transfer-encoding', 'upgrade', 'expect']);

/** One HTTP peer, an engine or another agent's door, with its connections. */
export class Upstream {
  readonly url: string;
  private readonly pool: Pool;

  constructor(url: string, connectTimeoutMs: number) {
    this.url = url;
    // Time to first byte and silence are watched by forward.ts, on the injected clock.
    this.pool = new Pool(url, {
      keepAliveTimeout: KEEP_ALIVE_MS,
      keepAliveMaxTimeout: KEEP_ALIVE_MS,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: connectTimeoutMs },
    });
  }

  dispatch(request: UpstreamRequest, handler: AttemptHandler): Attempt {
    let controller: Dispatcher.DispatchController | undefined;
    let over = false;
    this.pool.dispatch(
      { method: request.method as Dispatcher.HttpMethod, path: request.path, ...payload(request) },
      {
        onRequestStart(started) {
          controller = started;
          if (over) started.abort(new Error('aborted'));
        },
        onResponseStart(_controller, status, headers) {
          if (!over && status >= 200) handler.onHeaders(status, headers);
        },
        onResponseData(started, chunk) {
          if (!over && !handler.onData(chunk)) started.pause();
        },
        onResponseEnd() {
          if (over) return;
          over = true;
          handler.onEnd();
        },
        onResponseError(_controller, error) {
          if (over) return;
          over = true;
          handler.onError(new LodestarError('UPSTREAM_FAILED', errorMessage(error), { cause: error }));
        },
      },
    );
    return {
      abort() {
        if (over) return;
        over = true;
        controller?.abort(new Error('aborted'));
      },
      resume() {
        controller?.resume();
      },
    };
  }

  /** GET, bounded in time by the caller's signal and in size by `maxBytes`. Errors: as `ask`. */
  get(path: string, headers: Record<string, string>, signal: AbortSignal, maxBytes: number): Promise<{ status: number; body: Buffer }> {
    return this.ask({ method: 'GET', path, headers, body: [] }, signal, maxBytes);
  }

  /** A whole answer, bounded in time by the caller's signal and in size by `maxBytes`. Errors: UPSTREAM_FAILED for a larger body, undici's own. */
  async ask(request: UpstreamRequest, signal: AbortSignal, maxBytes: number): Promise<{ status: number; body: Buffer }> {
    const { method, path } = request;
    const answer = await this.pool.request({ method: method as Dispatcher.HttpMethod, path, signal, ...payload(request) });
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

/**
 * Headers and body as undici takes them. Several pieces go out one after the other and are never joined; with their length stated, undici does not
 * send them chunked. Its types leave iterables out, its documentation does not.
 */
function payload({ headers, body }: UpstreamRequest): Pick<Dispatcher.DispatchOptions, 'body'> & { headers: UpstreamRequest['headers'] } {
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
    if (value === undefined || HOP_BY_HOP.has(name) || INTERNAL_HEADERS.has(name) || name === 'host' || name === 'content-length') continue;
    out[name] = value;
  }
  return out;
}
