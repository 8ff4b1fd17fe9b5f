import type { Env, Timer } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';
import type { Failure } from '../../wire/ending.ts';
import type { Upstream } from '../../wire/upstream.ts';
import type { EngineGauges } from '../collectors/index.ts';
import type { OpenAttempt, OpenAttempts } from '../open-attempts.ts';
import { EnginePause } from './engine-pause.ts';
import { EngineProbe } from './engine-probe.ts';
import { type Doubt, EngineWatch, type WatchLimits } from './engine-watch.ts';
import { LostRequests } from './lost-requests.ts';

const TICK_MS = 100;
/** Gauges older than this do not show whether the engine stands still. */
const FRESH_MS = 5000;
/** Standstill after which it is asked whether it is paused: above the time between two readings of the gauges. */
const ASK_PAUSED_MS = 1500;

/** What the life of an engine is judged by, beside the deliveries to it. */
export interface LifeSources {
  /** clock ms of the newest answer to a health check; −Infinity before any */
  healthHeardMs(): number;
  /** clock ms of the newest check that found the engine gone (connection refused, or 503); undefined while it is not */
  goneMs(): number | undefined;
  gauges(): { value: EngineGauges; atMs: number; beganMs: number } | undefined;
  /** the longest step that the engine's law predicts */
  longestStepMs(): number;
  model(): string | undefined;
}

export interface LifeOptions {
  instance: string;
  env: Env;
  limits: WatchLimits;
  open: OpenAttempts;
  upstream: Upstream;
  /** what the engine asks of any request, its key for one */
  headers: Record<string, string>;
  sources: LifeSources;
}

const WORDS: Record<Exclude<Failure, 'unreachable' | 'reset' | 'link' | 'unknown-instance' | 'own-fault'>, string> = {
  gone: 'the engine is gone or has restarted',
  silent: 'nothing has come from the engine, its checks included',
  stuck: 'the engine answers its checks, but nothing in it moves',
  lost: 'the engine no longer counts the request among those that run or wait',
};

/**
 * Watches one engine and ends what runs there once it cannot come any more, so that nobody waits in vain; an engine
 * that is up and works is never cut, however long an answer takes. What it waits for are facts:
 * docs/request-lifecycle.md, "How long to wait".
 */
export class EngineLife {
  private readonly options: LifeOptions;
  private readonly watch: EngineWatch;
  private readonly lost = new LostRequests();
  private readonly probe: EngineProbe;
  private readonly pause: EnginePause;
  private timer: Timer | undefined;
  private healthHeardMs = -Infinity;
  private readMs = -Infinity;
  private progressReadMs = -Infinity;
  private lastGauges = '';
  private goneMs: number | undefined;
  private said: Doubt | undefined;

  constructor(options: LifeOptions) {
    this.options = options;
    this.watch = new EngineWatch(options.limits);
    const { env, upstream, headers } = options;
    this.probe = new EngineProbe(env.clock, upstream, headers, () => this.watch.proven());
    this.pause = new EnginePause(env.clock, upstream, headers);
  }

  /** Why it gets no new requests; undefined: it may. */
  get doubt(): Doubt | undefined {
    return this.watch.doubt;
  }

  start(): void {
    this.timer ??= this.options.env.clock.every(TICK_MS, () => this.tick());
  }

  stop(): void {
    this.timer?.cancel();
    this.timer = undefined;
  }

  /** A byte of an answer came; `data`: of the body of a good one. */
  byte(data: boolean): void {
    this.watch.byte(data);
  }

  /** The engine has restarted: what was sent to it before that cannot come any more. `beforeMs`: clock ms. */
  restarted(beforeMs: number): void {
    this.end(
      'gone',
      this.running().filter((one) => one.sentMs < beforeMs),
    );
  }

  private tick(): void {
    const { env, sources } = this.options;
    const nowMs = env.clock.nowMs();
    if (sources.healthHeardMs() !== this.healthHeardMs) this.watch.checked();
    this.healthHeardMs = sources.healthHeardMs();
    this.readGauges();
    const running = this.running();
    const gaugesFresh = nowMs - this.progressReadMs < FRESH_MS;
    const ends = this.watch.tick(nowMs, {
      work: running.some((one) => one.sequences > 0 && !one.paused),
      gaugesFresh,
      longestStepMs: sources.longestStepMs(),
      paused: this.pause.paused,
    });
    if (ends) this.end(ends, running);
    if (this.pause.paused || (gaugesFresh && this.watch.standstillMs >= ASK_PAUSED_MS)) this.pause.ask();
    this.endGone(sources.goneMs());
    if (this.doubt === 'stuck' || this.doubt === 'lost') this.probe.ask(sources.model());
    this.say();
  }

  private readGauges(): void {
    const reading = this.options.sources.gauges();
    if (!reading || reading.atMs === this.readMs) return;
    this.readMs = reading.atMs;
    // A page without the counter of generated tokens does not tell whether the engine works.
    if (reading.value.generationTokens !== undefined) this.progressReadMs = reading.atMs;
    const { running, waiting, kvUsageRatio, prefixQueries, promptTokens, generationTokens, preemptions } =
      reading.value;
    const gauges = [running, waiting, kvUsageRatio, prefixQueries, promptTokens, generationTokens, preemptions].join(
      ' ',
    );
    this.watch.read(gauges !== this.lastGauges);
    this.lastGauges = gauges;
    const lost = this.lost.note({ beganMs: reading.beganMs, atEngine: running + waiting }, this.running());
    if (lost.length === 0) return;
    this.watch.lose();
    this.end('lost', lost);
  }

  /** A check has found it gone: whatever was sent before that check. */
  private endGone(goneMs: number | undefined): void {
    if (goneMs === this.goneMs) return;
    this.goneMs = goneMs;
    if (goneMs !== undefined)
      this.end(
        'gone',
        this.running().filter((one) => one.sentMs < goneMs),
      );
  }

  private running(): OpenAttempt[] {
    const { open, instance } = this.options;
    return open.select((one) => one.instance === instance);
  }

  private end(failure: keyof typeof WORDS, attempts: readonly OpenAttempt[]): void {
    for (const one of attempts) one.end({ failure, error: new LodestarError('UPSTREAM_TIMEOUT', WORDS[failure]) });
    if (attempts.length > 0)
      this.options.env.log.warn(
        { instance: this.options.instance, requests: attempts.length, failure },
        `ended what ran there: ${WORDS[failure]}`,
      );
  }

  private say(): void {
    // A second of quiet is no news.
    const doubt = this.doubt === 'quiet' ? undefined : this.doubt;
    if (doubt === this.said) return;
    const { env, instance } = this.options;
    if (doubt === undefined) env.log.info({ instance, was: this.said }, 'the engine is no longer in doubt');
    else env.log.warn({ instance, doubt }, 'the engine gets no new requests');
    this.said = doubt;
  }
}
