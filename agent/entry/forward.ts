import type { IncomingHttpHeaders } from 'node:http';
import type { Clock } from '../../shared/env.ts';
import { errorMessage, LodestarError } from '../../shared/errors.ts';
import type { ClientAnswer } from '../wire/client-answer.ts';
import { type AttemptFailure, failureNamed } from '../wire/ending.ts';
import { FAILURE_HEADER, USAGE_HEADER } from '../wire/hop.ts';
import type { EventCutter } from '../wire/sse.ts';
import type { AnswerTold, Attempt, AttemptHandler } from '../wire/upstream.ts';
import { formOf } from '../wire/whole-answer.ts';
import { AnswerObserver, type Observed } from './answer-observer.ts';
import type { Ending } from './culprit.ts';
import type { InstanceView } from './instances.ts';
import type { RunningAttempt, RunningAttempts } from './running-attempts.ts';
import type { Watchdog, Watched } from './watchdog.ts';

export interface ForwardOptions {
  clock: Clock;
  watchdog: Watchdog;
  running: RunningAttempts;
  view: InstanceView;
  /** this entry's number of the request at the instance */
  seq: number;
  /** the request asks for a stream */
  stream: boolean;
  /** when the request as a whole is over, clock ms, and whose limit that is; Infinity: never */
  deadlineMs: number;
  deadline: 'client-deadline' | 'operator-deadline';
  slowClientTimeoutMs: number;
  /** headers that we add to the answer */
  extraHeaders: Record<string, string>;
  /** called with the headers of any answer, for the door's report in them */
  onAnswerHeaders(headers: IncomingHttpHeaders): void;
  /** called once, when the first bytes of an answer that is no error go to the client */
  onBegun(): void;
}

/** Statuses that may be one engine's own: another one may answer otherwise. */
const DENIED: ReadonlySet<number> = new Set([401, 403, 404]);
/** An engine's error body is kept up to this size. */
const MAX_REFUSAL_BYTES = 1024 * 1024;
const DEFAULT_REST_MS = 1000;

/** An error answer that is withheld while another instance may do better. */
export interface Refusal {
  status: number;
  headers: IncomingHttpHeaders;
  /** undefined: too large to keep */
  body: Buffer | undefined;
}

/** How an attempt ended. */
export interface AttemptResult {
  ending: Ending;
  /** false: no byte reached the client, so another instance may be tried */
  begun: boolean;
  httpStatus: number | undefined;
  error: LodestarError | undefined;
  refusal: Refusal | undefined;
  /** how long a full instance asks to be left alone, ms */
  restMs: number;
  observed: Observed;
  e2eMs: number;
}

/**
 * Sends one attempt and passes its answer on as it comes. Status and headers are withheld until the first body byte:
 * vLLM sends 200 long before its first token, so until then nothing is promised and a failure can be retried elsewhere.
 * Settles when the attempt is over; never rejects.
 */
export function forward(
  dispatch: (handler: AttemptHandler) => Attempt,
  answer: ClientAnswer,
  options: ForwardOptions,
): Promise<AttemptResult> {
  return new Promise((resolve) => new Forwarding(answer, options, resolve).start(dispatch));
}

class Forwarding implements AttemptHandler, Watched, RunningAttempt {
  readonly view: InstanceView;
  readonly seq: number;
  readonly sentMs: number;
  lastByteMs: number;
  deadlineMs: number;
  /** clock ms since which the client does not read; undefined: it does */
  private pausedMs: number | undefined;
  /** bytes that it had accepted by then */
  private acceptedBytes: number | undefined;
  private readonly answer: ClientAnswer;
  private readonly options: ForwardOptions;
  private readonly resolve: (result: AttemptResult) => void;
  private observer = new AnswerObserver('unread', false);
  private attempt: Attempt | undefined;
  private status = 0;
  private headers: IncomingHttpHeaders = {};
  /** the answer is an error: it is kept back, since another instance may do better */
  private refused = false;
  private refusal: Buffer[] | undefined = [];
  private refusalBytes = 0;
  /** all of the error answer is there */
  private refusedWhole = false;
  private over = false;

  constructor(answer: ClientAnswer, options: ForwardOptions, resolve: (result: AttemptResult) => void) {
    this.answer = answer;
    this.options = options;
    this.resolve = resolve;
    this.view = options.view;
    this.seq = options.seq;
    this.sentMs = options.clock.nowMs();
    this.lastByteMs = this.sentMs;
    this.deadlineMs = options.deadlineMs;
  }

  get paused(): boolean {
    return this.pausedMs !== undefined;
  }

  start(dispatch: (handler: AttemptHandler) => Attempt): void {
    const { watchdog, running } = this.options;
    watchdog.add(this);
    running.add(this);
    this.answer.watch(this.onClientGone, this.onDrain);
    try {
      this.attempt = dispatch(this);
    } catch (error) {
      const cause = new LodestarError('UPSTREAM_FAILED', `the request could not be sent: ${errorMessage(error)}`, {
        cause: error,
      });
      this.onFailure({ failure: 'own-fault', error: cause });
    }
    // What ended while it was sent had nothing to abort yet.
    if (this.over) this.attempt?.abort();
    else if (this.answer.gone) this.onClientGone();
  }

  onHeaders(status: number, headers: IncomingHttpHeaders): void {
    if (this.over) return;
    this.lastByteMs = this.options.clock.nowMs();
    this.status = status;
    this.headers = headers;
    this.options.onAnswerHeaders(headers);
    this.observer = new AnswerObserver(
      status === 200 ? formOf(headers) : 'unread',
      headers[USAGE_HEADER] !== undefined,
    );
    this.refused = headers[FAILURE_HEADER] !== undefined || status >= 500 || status === 429 || DENIED.has(status);
  }

  onData(chunk: Buffer, cut?: EventCutter): boolean {
    if (this.over) return true;
    const nowMs = this.options.clock.nowMs();
    this.lastByteMs = nowMs;
    if (this.refused) return this.keepRefusal(chunk);
    const atMs = nowMs - this.sentMs;
    const out = this.observer.filter(chunk, atMs, cut);
    // A stream in a coding of its own cannot be read: its first byte stands for its first token.
    if (this.options.stream && this.status === 200) this.observer.observed.ttftMs ??= out && atMs;
    if (this.observer.observed.inBandError && !this.answer.begun) {
      // Nothing good follows: what the stream holds so far is the engine's answer.
      this.refused = true;
      const held = this.observer.rest(out);
      if (held) this.keepRefusal(held);
      this.attempt?.abort();
      this.settleRefused();
      return true;
    }
    if (out === undefined) return true;
    this.begin();
    return this.write(out);
  }

  onEnd(told?: AnswerTold): void {
    if (this.over) return;
    if (this.refused) return this.settleRefused();
    const atMs = this.options.clock.nowMs() - this.sentMs;
    const rest = this.observer.finish(atMs, told);
    this.begin();
    if (rest) this.answer.write(rest);
    this.answer.end();
    this.settle(this.endingOfAnswer(), undefined);
  }

  onFailure({ failure, error }: AttemptFailure): void {
    if (this.over) return;
    if (this.answer.begun) this.breakOff('The instance broke off in the middle of its answer.');
    this.settle(failure, error);
  }

  /** Ends the attempt from outside: what it waits for will not come. */
  end(failure: AttemptFailure): void {
    this.attempt?.abort();
    this.onFailure(failure);
  }

  onTimeout(): void {
    const { clock, deadlineMs, deadline, slowClientTimeoutMs } = this.options;
    const isSlow = clock.nowMs() < deadlineMs;
    // One that reads on, if slowly, or whose answer waits for its turn on a connection with others.
    if (isSlow && this.answer.acceptedBytes !== this.acceptedBytes) return this.goOnWaiting();
    this.attempt?.abort();
    if (isSlow) {
      this.answer.cut();
      this.settle(
        'client-stalled',
        new LodestarError(
          'UPSTREAM_TIMEOUT',
          `the client did not read for ${slowClientTimeoutMs} ms (agent.slowClientTimeoutMs)`,
        ),
      );
      return;
    }
    if (this.answer.begun) this.breakOff('The time for this request is over.');
    this.settle(deadline, new LodestarError('UPSTREAM_TIMEOUT', 'the time for the request is over'));
  }

  private goOnWaiting(): void {
    this.pauseClient();
    this.options.watchdog.add(this);
  }

  private endingOfAnswer(): Ending {
    if (this.observer.observed.inBandError) return 'error-event';
    return this.status >= 400 ? 'rejected' : 'answered';
  }

  private settleRefused(): void {
    const named = this.headers[FAILURE_HEADER];
    if (named !== undefined) {
      const error = new LodestarError('UPSTREAM_FAILED', `the door reports: ${String(named)}`);
      return this.settle(failureNamed(String(named)), error);
    }
    const error = new LodestarError(
      'UPSTREAM_FAILED',
      this.status === 200 ? 'the engine answered with an error event' : `the engine answered ${this.status}`,
    );
    this.refusedWhole = true;
    if (this.status === 200) return this.settle('error-event', error);
    if (DENIED.has(this.status)) return this.settle('denied', error);
    const full = this.status === 429 || (this.status === 503 && this.view.report?.health === 'up');
    this.settle(full ? 'full' : 'server-error', error);
  }

  private write(out: Buffer): boolean {
    const goOn = this.answer.write(out);
    if (!goOn && this.pausedMs === undefined) this.pauseClient();
    return goOn;
  }

  private pauseClient(): void {
    const { clock, deadlineMs, slowClientTimeoutMs } = this.options;
    this.pausedMs = clock.nowMs();
    this.acceptedBytes = this.answer.acceptedBytes;
    this.deadlineMs = Math.min(deadlineMs, this.pausedMs + slowClientTimeoutMs);
  }

  /**
   * Ends an answer that has begun: a stream with an error event of its surface, anything else by a cut, so that half is
   * not taken for the whole.
   */
  private breakOff(message: string): void {
    const rest = this.observer.rest();
    if (rest && !this.answer.gone) this.answer.write(rest);
    if (!this.observer.atBoundary) this.answer.cut();
    else this.answer.endWithError(message, this.observer.surface, this.observer.events);
  }

  private keepRefusal(chunk: Buffer): true {
    this.refusalBytes += chunk.length;
    if (this.refusalBytes > MAX_REFUSAL_BYTES) this.refusal = undefined;
    this.refusal?.push(chunk);
    return true;
  }

  private begin(): void {
    if (this.answer.begun || this.answer.gone) return;
    this.answer.begin(this.status, this.headers, this.options.extraHeaders);
    if (this.status < 400) this.options.onBegun();
  }

  private readonly onClientGone = (): void => {
    if (this.over || this.answer.finished) return;
    this.attempt?.abort();
    this.settle('client-left', undefined);
  };

  private readonly onDrain = (): void => {
    this.pausedMs = undefined;
    this.deadlineMs = this.options.deadlineMs;
    this.lastByteMs = this.options.clock.nowMs();
    this.attempt?.resume();
  };

  private settle(ending: Ending, error: LodestarError | undefined): void {
    if (this.over) return;
    this.over = true;
    this.options.watchdog.remove(this);
    this.options.running.remove(this);
    this.answer.unwatch(this.onClientGone, this.onDrain);
    this.resolve({
      ending,
      begun: this.answer.begun,
      httpStatus: this.status || undefined,
      error,
      refusal: this.refusedWhole
        ? { status: this.status, headers: this.headers, body: this.refusal && Buffer.concat(this.refusal) }
        : undefined,
      restMs: ending === 'full' ? restMs(this.headers['retry-after'], this.options.clock) : 0,
      observed: this.observer.observed,
      e2eMs: this.options.clock.nowMs() - this.sentMs,
    });
  }
}

/**
 * Milliseconds that a `retry-after` asks for: seconds or a date (RFC 9110, 10.2.3); a second without one that can be
 * read; at most a minute.
 */
function restMs(value: string | undefined, clock: Clock): number {
  const seconds = value === undefined ? NaN : Number(value);
  const ms = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(value ?? '') - clock.wallMs();
  return Number.isFinite(ms) && ms > 0 ? ms : DEFAULT_REST_MS;
}
