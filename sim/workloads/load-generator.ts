import { Agent } from 'undici';
import type { Clock, Timer } from '../../shared/env.ts';
import { sendRequest } from './load-request.ts';
import { summarizeLoad, type LoadOutcome, type LoadResult } from './load-result.ts';

/** One planned request. The prompt is made when it is sent, so that a long plan needs no memory for text. */
export interface PlannedRequest {
  arrivalMs: number;
  maxTokens: number;
  prompt: () => string;
}

export interface LoadOptions {
  /** Base URLs, served in turn. */
  urls: readonly string[];
  /** In order of arrival. */
  requests: readonly PlannedRequest[];
  api: 'chat' | 'completions';
  model: string;
  apiKey?: string | undefined;
  clock: Clock;
  /** Longest life of one request. */
  timeoutMs?: number | undefined;
  /** Requests at once; one more ends as `overload` instead of using up sockets. */
  maxInFlight?: number | undefined;
  /** Ends the run: nothing more is sent, what is under way is aborted. */
  signal?: AbortSignal | undefined;
  /** Every outcome as it comes, for live views. */
  onOutcome?: ((outcome: LoadOutcome) => void) | undefined;
}

/** State of a run, for live views. */
export interface LoadProgress {
  planned: number;
  sent: number;
  inFlight: number;
  succeeded: number;
  failed: number;
  elapsedMs: number;
}

const DEFAULT_TIMEOUT_MS = 600_000;
const DEFAULT_MAX_IN_FLIGHT = 4096;
const PROGRESS_PERIOD_MS = 200;

/**
 * Sends every request at its time, whether or not earlier ones have been answered (open loop), with streaming and exact
 * answer lengths (`ignore_eos`), and settles when all have ended. Failures are outcomes; it rejects only on a bug.
 */
export function runLoad(options: LoadOptions, onProgress?: (progress: LoadProgress) => void): Promise<LoadResult> {
  return new LoadRun(options, onProgress).run();
}

class LoadRun {
  private readonly options: LoadOptions;
  private readonly onProgress: ((progress: LoadProgress) => void) | undefined;
  private readonly dispatcher = new Agent({ pipelining: 1 });
  private readonly targets: { origin: string; path: string }[];
  private readonly startMs: number;
  private readonly outcomes: LoadOutcome[] = [];
  private readonly aborts = new Set<() => void>();
  private readonly pending = new Set<Promise<void>>();
  private succeeded = 0;
  private failed = 0;
  private next = 0;
  private timer: Timer | undefined;
  private allSent: () => void = () => {};

  constructor(options: LoadOptions, onProgress: ((progress: LoadProgress) => void) | undefined) {
    this.options = options;
    this.onProgress = onProgress;
    const route = options.api === 'chat' ? '/v1/chat/completions' : '/v1/completions';
    this.targets = options.urls.map((text) => {
      const url = new URL(text);
      return { origin: url.origin, path: url.pathname.replace(/\/+$/, '') + route };
    });
    this.startMs = options.clock.nowMs();
  }

  async run(): Promise<LoadResult> {
    const { clock, signal, requests } = this.options;
    const stop = (): void => this.stop();
    const progress = clock.every(PROGRESS_PERIOD_MS, () => this.report());
    signal?.addEventListener('abort', stop, { once: true });
    try {
      await new Promise<void>((done) => {
        this.allSent = done;
        if (signal?.aborted) done();
        else this.sendDue();
      });
      while (this.pending.size > 0) await Promise.all(this.pending);
    } finally {
      progress.cancel();
      signal?.removeEventListener('abort', stop);
      await this.dispatcher.destroy();
    }
    this.report();
    return summarizeLoad(this.outcomes, clock.nowMs() - this.startMs, requests[this.next - 1]?.arrivalMs ?? 0);
  }

  private sendDue(): void {
    const { clock, requests } = this.options;
    const elapsedMs = clock.nowMs() - this.startMs;
    for (let due = requests[this.next]; due && due.arrivalMs <= elapsedMs; due = requests[this.next])
      this.send(due, elapsedMs - due.arrivalMs);
    const following = requests[this.next];
    if (following) this.timer = clock.after(following.arrivalMs - elapsedMs, () => this.sendDue());
    else this.allSent();
  }

  private send(planned: PlannedRequest, lateMs: number): void {
    const { clock, apiKey, timeoutMs, maxInFlight } = this.options;
    const index = this.next++;
    const urlIndex = index % this.targets.length;
    const target = this.targets[urlIndex];
    const plan = { index, urlIndex, arrivalMs: planned.arrivalMs, lateMs };
    if (!target || this.pending.size >= (maxInFlight ?? DEFAULT_MAX_IN_FLIGHT)) {
      const none = {
        status: undefined,
        ttftMs: undefined,
        tpotMs: undefined,
        promptTokens: undefined,
        cachedTokens: undefined,
        completionTokens: undefined,
      };
      this.take({ kind: 'overload', ...plan, ...none, e2eMs: 0, detail: `${this.pending.size} requests in flight` });
      return;
    }
    const headers = {
      'content-type': 'application/json',
      ...(apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` }),
    };
    const sending = sendRequest({
      dispatcher: this.dispatcher,
      clock,
      ...target,
      headers,
      body: this.bodyOf(planned),
      timeoutMs: timeoutMs ?? DEFAULT_TIMEOUT_MS,
      plan,
    });
    this.aborts.add(sending.abort);
    const ended = sending.outcome.then((outcome) => {
      this.aborts.delete(sending.abort);
      this.pending.delete(ended);
      this.take(outcome);
    });
    this.pending.add(ended);
  }

  private bodyOf({ prompt, maxTokens }: PlannedRequest): string {
    const { api, model } = this.options;
    const text = prompt();
    const input = api === 'chat' ? { messages: [{ role: 'user', content: text }] } : { prompt: text };
    return JSON.stringify({
      model,
      ...input,
      max_tokens: maxTokens,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    });
  }

  private take(outcome: LoadOutcome): void {
    this.outcomes.push(outcome);
    if (outcome.kind === 'ok') this.succeeded++;
    else if (outcome.kind !== 'aborted') this.failed++;
    this.options.onOutcome?.(outcome);
  }

  private stop(): void {
    this.timer?.cancel();
    for (const abort of this.aborts) abort();
    this.allSent();
  }

  private report(): void {
    this.onProgress?.({
      planned: this.options.requests.length,
      sent: this.next,
      inFlight: this.pending.size,
      succeeded: this.succeeded,
      failed: this.failed,
      elapsedMs: this.options.clock.nowMs() - this.startMs,
    });
  }
}
