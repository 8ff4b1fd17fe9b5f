import type { Dispatcher } from 'undici';
import type { Clock } from '../../shared/env.ts';
import { errorMessage } from '../../shared/errors.ts';
import type { LoadOutcome, OutcomeKind } from './load-result.ts';
import { SseScanner } from './sse-scanner.ts';

/** One streaming request on its way out. */
export interface OutgoingRequest {
  dispatcher: Dispatcher;
  clock: Clock;
  origin: string;
  path: string;
  headers: Record<string, string>;
  body: string;
  timeoutMs: number;
  /** Whatever of the outcome is known before sending. */
  plan: Pick<LoadOutcome, 'index' | 'urlIndex' | 'arrivalMs' | 'lateMs'>;
}

const MAX_ERROR_BODY = 2000;

/** Sends it and settles with its outcome; never rejects. `abort` ends it early, as `aborted`. */
export function sendRequest(request: OutgoingRequest): { outcome: Promise<LoadOutcome>; abort: () => void } {
  const exchange = new Exchange(request);
  const outcome = new Promise<LoadOutcome>((settle) => exchange.begin(settle));
  return { outcome, abort: () => exchange.stop('aborted', 'stopped') };
}

/** The undici handler of one request: times its chunks and names its end. */
class Exchange implements Dispatcher.DispatchHandler {
  private readonly request: OutgoingRequest;
  private readonly startMs: number;
  private readonly scanner = new SseScanner();
  private settle: ((outcome: LoadOutcome) => void) | undefined;
  private controller: Dispatcher.DispatchController | undefined;
  private status: number | undefined;
  private errorBody = '';
  private timer: { cancel(): void } | undefined;

  constructor(request: OutgoingRequest) {
    this.request = request;
    this.startMs = request.clock.nowMs();
  }

  begin(settle: (outcome: LoadOutcome) => void): void {
    const { dispatcher, clock, origin, path, headers, body, timeoutMs } = this.request;
    this.settle = settle;
    this.timer = clock.after(timeoutMs, () => this.stop('timeout', `not finished after ${timeoutMs} ms`));
    try {
      dispatcher.dispatch({ origin, path, method: 'POST', headers, body, headersTimeout: 0, bodyTimeout: 0 }, this);
    } catch (error) {
      this.end('connect', errorMessage(error));
    }
  }

  stop(kind: OutcomeKind, why: string): void {
    if (!this.settle) return;
    this.end(kind, why);
    this.controller?.abort(new Error(why));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller;
    if (!this.settle) controller.abort(new Error('stopped'));
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number): void {
    if (status >= 200) this.status = status;
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.status === 200) this.scanner.push(chunk, this.request.clock.nowMs());
    else if (this.errorBody.length < MAX_ERROR_BODY) this.errorBody += chunk.toString('utf8', 0, MAX_ERROR_BODY);
  }

  onResponseEnd(): void {
    if (this.status !== 200) this.end('status', this.errorBody || `answered ${this.status}`);
    else if (this.scanner.error !== undefined) this.end('in-band-error', this.scanner.error);
    else if (!this.scanner.done) this.end('cut', 'the stream ended without [DONE]');
    else this.end('ok', undefined);
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    const kind = this.status === undefined ? 'connect' : 'cut';
    this.end(this.scanner.error === undefined ? kind : 'in-band-error', this.scanner.error ?? error.message);
  }

  private end(kind: OutcomeKind, detail: string | undefined): void {
    const { clock, plan } = this.request;
    const { firstMs, lastMs, usage } = this.scanner;
    const later = (usage?.completionTokens ?? 0) - 1;
    this.timer?.cancel();
    this.settle?.({
      kind,
      ...plan,
      status: this.status,
      ttftMs: firstMs === undefined ? undefined : firstMs - this.startMs,
      tpotMs: firstMs === undefined || lastMs === undefined || later < 1 ? undefined : (lastMs - firstMs) / later,
      e2eMs: clock.nowMs() - this.startMs,
      promptTokens: usage?.promptTokens,
      cachedTokens: usage?.cachedTokens,
      completionTokens: usage?.completionTokens,
      detail,
    });
    this.settle = undefined;
  }
}
