import type { IncomingHttpHeaders, ServerResponse } from 'node:http';
import { passableHeaders } from './upstream.ts';

/** Error body in vLLM's shape. */
export function errorBody(status: number, type: string, message: string, param: string | null = null): string {
  return JSON.stringify({ error: { message, type, param, code: status } });
}

/** The client's side of one request: an answer that is begun late, so that until then another instance may still give it. */
export class ClientAnswer {
  readonly response: ServerResponse;
  private eventStream = false;
  private flushed = false;

  constructor(response: ServerResponse) {
    this.response = response;
  }

  /** True once status and headers have gone out: from then on the answer is this instance's or broken. */
  get begun(): boolean {
    return this.response.headersSent;
  }

  get gone(): boolean {
    return this.response.destroyed || this.response.writableEnded;
  }

  begin(status: number, headers: IncomingHttpHeaders, extra: Record<string, string>): void {
    this.eventStream = String(headers['content-type'] ?? '').startsWith('text/event-stream');
    this.response.writeHead(status, { ...passableHeaders(headers), ...extra });
  }

  /** False asks the source to pause until the client has read on. */
  write(chunk: Buffer): boolean {
    const goOn = this.response.write(chunk);
    // Node holds what is written until the end of the tick; the first token does not wait for what else this tick has to do.
    if (!this.flushed) this.response.socket?.uncork();
    this.flushed = true;
    return goOn;
  }

  end(): void {
    this.response.end();
  }

  /** An error instead of an answer, in vLLM's shape. Only before `begin`. */
  fail(status: number, type: string, message: string, options: { param?: string | null; headers?: Record<string, string> } = {}): void {
    if (this.gone || this.begun) return;
    const body = errorBody(status, type, message, options.param ?? null);
    this.response.writeHead(status, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(body), ...options.headers });
    this.response.end(body);
  }

  /**
   * The instance broke off in the middle of its answer. A stream ends with an error event, as vLLM's own do, which clients raise; any other answer
   * is cut, so that nobody takes half of it for the whole.
   */
  breakOff(message: string): void {
    if (this.gone) return;
    if (!this.eventStream) {
      this.response.destroy();
      return;
    }
    this.response.end(`data: ${errorBody(502, 'BadGatewayError', message)}\n\ndata: [DONE]\n\n`);
  }
}
