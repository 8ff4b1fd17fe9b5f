import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import type { ClientAnswer } from '../wire/client-answer.ts';
import { FAILURE_HEADER } from '../wire/hop.ts';
import { AnswerObserver, type Observed } from './answer-observer.ts';
import type { Attempt, AttemptHandler } from '../wire/upstream.ts';
import type { Watchdog, Watched } from './watchdog.ts';

export interface ForwardOptions {
  clock: Clock;
  watchdog: Watchdog;
  firstByteTimeoutMs: number;
  idleTimeoutMs: number;
  stream: boolean;
  stripUsage: boolean;
  /** false on the last attempt: then an engine's own 5xx goes to the client as it is */
  mayRetry: boolean;
  /** headers that we add to the answer */
  extraHeaders: Record<string, string>;
  /** called with the headers of any answer, for the door's report in them */
  onAnswerHeaders(headers: IncomingHttpHeaders): void;
}

/** An engine's error body is kept up to this size. */
const MAX_REFUSAL_BYTES = 65_536;

/** How an attempt ended. */
export interface AttemptResult {
  status: 'ok' | 'aborted' | 'failed' | 'timeout';
  /** false: no byte reached the client, so another instance may be tried */
  begun: boolean;
  httpStatus: number | undefined;
  error: LodestarError | undefined;
  /** the engine's own 5xx answer, withheld while another instance may do better */
  refusal: { status: number; headers: IncomingHttpHeaders; body: Buffer } | undefined;
  observed: Observed;
  e2eMs: number;
}

/**
 * Sends one attempt and passes its answer on as it comes. Status and headers are withheld until the first body byte: vLLM sends 200 long
 * before its first token, so until then nothing is promised and a failure can be retried elsewhere. Settles when the attempt is over; never rejects.
 */
export function forward(dispatch: (handler: AttemptHandler) => Attempt, answer: ClientAnswer, options: ForwardOptions): Promise<AttemptResult> {
  return new Promise((resolve) => new Forwarding(dispatch, answer, options, resolve));
}

class Forwarding implements AttemptHandler, Watched {
  deadlineMs: number;
  private readonly answer: ClientAnswer;
  private readonly options: ForwardOptions;
  private readonly resolve: (result: AttemptResult) => void;
  private readonly observer: AnswerObserver;
  private readonly startMs: number;
  private readonly attempt: Attempt;
  private status = 0;
  private headers: IncomingHttpHeaders = {};
  private refused = false;
  private refusal: Buffer[] = [];
  private refusalBytes = 0;
  private over = false;

  constructor(dispatch: (handler: AttemptHandler) => Attempt, answer: ClientAnswer, options: ForwardOptions, resolve: (result: AttemptResult) => void) {
    this.answer = answer;
    this.options = options;
    this.resolve = resolve;
    this.observer = new AnswerObserver(options.stream, options.stripUsage);
    this.startMs = options.clock.nowMs();
    this.deadlineMs = this.startMs + options.firstByteTimeoutMs;
    options.watchdog.add(this);
    answer.response.on('close', this.onClientGone);
    answer.response.on('drain', this.onDrain);
    this.attempt = dispatch(this);
    if (answer.gone) this.onClientGone();
  }

  onHeaders(status: number, headers: IncomingHttpHeaders): void {
    this.status = status;
    this.headers = headers;
    this.options.onAnswerHeaders(headers);
    // The door itself failed, or the engine cannot serve: another instance may do better.
    const doorFailure = headers[FAILURE_HEADER] !== undefined;
    this.refused = doorFailure || (status >= 500 && this.options.mayRetry);
  }

  onData(chunk: Buffer): boolean {
    if (this.over) return true;
    if (this.refused) {
      this.keepRefusal(chunk);
      return true;
    }
    const atMs = this.options.clock.nowMs() - this.startMs;
    const out = this.observer.filter(chunk, atMs);
    if (this.observer.observed.inBandError && !this.answer.begun && this.options.mayRetry) {
      this.attempt.abort();
      this.settle('failed', new LodestarError('UPSTREAM_FAILED', 'the engine answered with an error event'));
      return true;
    }
    // What merely announces an answer does not end the wait for its first byte.
    if (out !== undefined || this.answer.begun) this.deadlineMs = this.startMs + atMs + this.options.idleTimeoutMs;
    if (out === undefined) return true;
    this.begin();
    return this.answer.write(out);
  }

  onEnd(): void {
    if (this.refused) {
      const what = this.headers[FAILURE_HEADER] ?? `status ${this.status}`;
      this.settle('failed', new LodestarError('UPSTREAM_FAILED', `the instance failed: ${String(what)}`));
      return;
    }
    const rest = this.observer.finish(this.options.clock.nowMs() - this.startMs);
    this.begin();
    if (rest) this.answer.write(rest);
    this.answer.end();
    const failed = this.status >= 500 || this.observer.observed.inBandError;
    this.settle(failed ? 'failed' : 'ok', undefined);
  }

  onError(error: LodestarError): void {
    if (this.answer.begun) this.breakOff('The instance broke off in the middle of its answer.');
    this.settle('failed', error);
  }

  onTimeout(): void {
    this.attempt.abort();
    const begun = this.answer.begun;
    if (begun) this.breakOff('The instance stopped in the middle of its answer.');
    const { firstByteTimeoutMs, idleTimeoutMs } = this.options;
    const message = begun ? `no byte for ${idleTimeoutMs} ms within the answer` : `no first byte within ${firstByteTimeoutMs} ms`;
    this.settle('timeout', new LodestarError('UPSTREAM_TIMEOUT', message));
  }

  /** Ends an answer that has begun; in a stream of the Messages API with its own kind of error event, since its clients skip any other. */
  private breakOff(message: string): void {
    const rest = this.observer.rest();
    if (rest && !this.answer.gone) this.answer.write(rest);
    if (!this.observer.isMessages || this.answer.gone) return this.answer.breakOff(message);
    this.answer.write(Buffer.from(`event: error\ndata: ${JSON.stringify({ type: 'error', error: { type: 'api_error', message } })}\n\n`));
    this.answer.end();
  }

  private keepRefusal(chunk: Buffer): void {
    this.refusalBytes += chunk.length;
    if (this.refusalBytes <= MAX_REFUSAL_BYTES) this.refusal.push(chunk);
  }

  private begin(): void {
    if (!this.answer.begun && !this.answer.gone) this.answer.begin(this.status, this.headers, this.options.extraHeaders);
  }

  private readonly onClientGone = (): void => {
    if (this.over || this.answer.response.writableFinished) return;
    this.attempt.abort();
    this.settle('aborted', undefined);
  };

  private readonly onDrain = (): void => this.attempt.resume();

  private settle(status: AttemptResult['status'], error: LodestarError | undefined): void {
    if (this.over) return;
    this.over = true;
    this.options.watchdog.remove(this);
    this.answer.response.off('close', this.onClientGone);
    this.answer.response.off('drain', this.onDrain);
    this.resolve({
      status,
      begun: this.answer.begun,
      httpStatus: this.status || undefined,
      error,
      refusal:
        this.refused && this.headers[FAILURE_HEADER] === undefined
          ? { status: this.status, headers: this.headers, body: Buffer.concat(this.refusal) }
          : undefined,
      observed: this.observer.observed,
      e2eMs: this.options.clock.nowMs() - this.startMs,
    });
  }
}
