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
 * Whether one engine lives, by what comes from it: any byte, of an answer or of a check, is life; a token, a byte of an answer, a counter or gauge that
 * moves is progress. Silence and standstill count only while this process itself runs.
 */
export class EngineWatch {
  private readonly limits: WatchLimits;
  private state: Doubt | undefined;
  private quietMs = 0;
  private stillMs = 0;
  private wasHeard = true;
  private hasMoved = true;
  private tickMs: number | undefined;

  constructor(limits: WatchLimits) {
    this.limits = limits;
  }

  get doubt(): Doubt | undefined {
    return this.state;
  }

  heard(): void {
    this.wasHeard = true;
  }

  moved(): void {
    this.wasHeard = true;
    this.hasMoved = true;
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
    this.quietMs = this.wasHeard ? 0 : this.quietMs + stepMs;
    this.stillMs = this.hasMoved || !work ? 0 : this.stillMs + stepMs;
    this.wasHeard = false;
    const before = this.state;
    if (this.hasMoved && before === 'stuck') this.state = undefined;
    this.hasMoved = false;
    const { suspectAfterMs, stuckAfterMs } = this.limits;
    if (this.quietMs >= suspectAfterMs) this.state = 'silent';
    else if (this.state === 'lost' || this.state === 'stuck') return undefined;
    else if (this.quietMs >= QUIET_MS) this.state = 'quiet';
    else if (gaugesFresh && this.stillMs >= Math.max(stuckAfterMs, STEPS_STUCK * longestStepMs)) this.state = 'stuck';
    else this.state = undefined;
    return this.state === before ? undefined : this.state;
  }
}
