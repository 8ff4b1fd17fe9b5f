/** Limits of `agent` in the configuration, ms. */
export interface WatchLimits {
  readonly suspectAfterMs: number;
  readonly stuckAfterMs: number;
}

/** What a tick looks at beside what was heard. */
export interface WatchFacts {
  /** requests are in flight there, and somebody reads their answers */
  readonly work: boolean;
  /** the engine's gauges have been read lately, so that their standing still is a fact */
  readonly gaugesFresh: boolean;
  readonly longestStepMs: number;
}

/** Why an engine gets no new requests: `quiet` is a silence that does not end running ones yet. */
export type Doubt = 'quiet' | 'silent' | 'stuck' | 'lost';

/** Silence after which an engine gets no new requests. */
const QUIET_MS = 1000;
/** A tick that comes later than this is our own loop's doing: the time beyond says nothing of the engine. */
const MAX_TICK_MS = 250;
const STEPS_STUCK = 10;

/**
 * Whether one engine lives, by what comes from it: a byte of an answer, an answer to a health check, a gauge or counter
 * that has moved. Gauges alone keep what runs there running, but bring no new requests: an engine that leaves its
 * health checks unanswered is not well. Silence and standstill count only while this process itself runs.
 */
export class EngineWatch {
  private readonly limits: WatchLimits;
  private state: Doubt | undefined;
  /** without a byte or an answered check; with unmoved gauges besides; without a byte or a moved gauge */
  private quietMs = 0;
  private silentMs = 0;
  private stillMs = 0;
  private wasChecked = true;
  private gotByte = true;
  private gaugesMoved = true;
  private tickMs: number | undefined;

  constructor(limits: WatchLimits) {
    this.limits = limits;
  }

  get doubt(): Doubt | undefined {
    return this.state;
  }

  /** A health check was answered. */
  checked(): void {
    this.wasChecked = true;
  }

  /** A byte of an answer came. */
  byte(): void {
    this.gotByte = true;
  }

  /** A gauge or counter is another than at the last reading. */
  moved(): void {
    this.gaugesMoved = true;
  }

  /** Requests were lost there, or it stood still: it has to prove itself before it gets others. */
  proven(): void {
    if (this.state === 'lost' || this.state === 'stuck') this.state = undefined;
    this.stillMs = 0;
  }

  lose(): void {
    this.state = 'lost';
  }

  /** To be called each 100 ms or so. Returns the doubt that has begun with this tick. */
  tick(nowMs: number, { work, gaugesFresh, longestStepMs }: WatchFacts): Doubt | undefined {
    const stepMs = Math.min(MAX_TICK_MS, nowMs - (this.tickMs ?? nowMs));
    this.tickMs = nowMs;
    const heard = this.wasChecked || this.gotByte;
    const moved = this.gotByte || this.gaugesMoved;
    this.quietMs = heard ? 0 : this.quietMs + stepMs;
    this.silentMs = heard || moved ? 0 : this.silentMs + stepMs;
    this.stillMs = moved || !work ? 0 : this.stillMs + stepMs;
    this.wasChecked = this.gotByte = this.gaugesMoved = false;
    const before = this.state;
    if (moved && before === 'stuck') this.state = undefined;
    const { suspectAfterMs, stuckAfterMs } = this.limits;
    if (this.silentMs >= suspectAfterMs) this.state = 'silent';
    else if (this.state === 'lost' || this.state === 'stuck') return undefined;
    else if (this.quietMs >= QUIET_MS) this.state = 'quiet';
    else if (gaugesFresh && this.stillMs >= Math.max(stuckAfterMs, STEPS_STUCK * longestStepMs)) this.state = 'stuck';
    else this.state = undefined;
    return this.state === before ? undefined : this.state;
  }
}
