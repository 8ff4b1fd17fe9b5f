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
  /** it says that it is paused */
  readonly paused: boolean;
}

/**
 * Why an engine gets no new requests: `quiet` is a silence, and `paused` a pause, that does not end running ones yet.
 */
export type Doubt = 'quiet' | 'paused' | 'silent' | 'stuck' | 'lost';

/** Silence after which an engine gets no new requests. */
const QUIET_MS = 1000;
/** A tick that comes later than this is our own loop's doing: the time beyond says nothing of the engine. */
const MAX_TICK_MS = 250;
const STEPS_STUCK = 10;
/** Standstill of an engine that says it is paused after which what runs there ends. */
const PAUSED_MS = 5000;

/**
 * Whether one engine lives, by what comes from it: a byte of an answer, an answer to a health check, a gauge or counter
 * that has moved. Gauges alone keep what runs there running, but bring no new requests: an engine that leaves its
 * health checks unanswered is not well. Whether it stands still is told by its gauges and by the data of good answers
 * alone: vLLM's API server sends the headers of a stream, and refuses requests, without its engine core. Silence and
 * standstill count only while this process itself runs.
 */
export class EngineWatch {
  private readonly limits: WatchLimits;
  private state: Doubt | undefined;
  /** without a byte or an answered check; with unmoved gauges besides; with work, unmoved gauges and no data */
  private quietMs = 0;
  private silentMs = 0;
  private stillMs = 0;
  private wasChecked = true;
  private gotByte = true;
  private gotData = true;
  private gaugesMoved = true;
  /** a reading since the gauges last moved has shown them where they were */
  private unmovedRead = false;
  private tickMs: number | undefined;

  constructor(limits: WatchLimits) {
    this.limits = limits;
  }

  get doubt(): Doubt | undefined {
    return this.state;
  }

  /** How long it has had work and stood still, ms. */
  get standstillMs(): number {
    return this.stillMs;
  }

  /** A health check was answered. */
  checked(): void {
    this.wasChecked = true;
  }

  /** A byte of an answer came; `data`: of the body of a good one, so that the engine core has computed it. */
  byte(data: boolean): void {
    this.gotByte = true;
    this.gotData ||= data;
  }

  /** The gauges and counters were read; `moved`: one is another than at the last reading. */
  read(moved: boolean): void {
    if (moved) this.gaugesMoved = true;
    this.unmovedRead = !moved;
  }

  /** Requests were lost there, or it stood still: it has to prove itself before it gets others. */
  proven(): void {
    if (this.state === 'lost' || this.state === 'stuck') this.state = undefined;
    this.stillMs = 0;
  }

  lose(): void {
    this.state = 'lost';
  }

  /** To be called each 100 ms or so. Returns why what runs there has to end, as long as it has to. */
  tick(nowMs: number, { work, gaugesFresh, longestStepMs, paused }: WatchFacts): 'silent' | 'stuck' | undefined {
    const stepMs = Math.min(MAX_TICK_MS, nowMs - (this.tickMs ?? nowMs));
    this.tickMs = nowMs;
    const heard = this.wasChecked || this.gotByte;
    const moved = this.gaugesMoved || this.gotData;
    if (moved && this.state === 'stuck') this.state = undefined;
    this.quietMs = heard ? 0 : this.quietMs + stepMs;
    this.silentMs = heard || moved ? 0 : this.silentMs + stepMs;
    // One that is known to stand still need not be given the time again by a request that comes late.
    this.stillMs = moved || (!work && this.state !== 'stuck') ? 0 : this.stillMs + stepMs;
    this.wasChecked = this.gotByte = this.gotData = this.gaugesMoved = false;
    const { suspectAfterMs, stuckAfterMs } = this.limits;
    const patienceMs = paused ? Math.min(PAUSED_MS, stuckAfterMs) : Math.max(stuckAfterMs, STEPS_STUCK * longestStepMs);
    const ends =
      this.silentMs >= suspectAfterMs
        ? 'silent'
        : gaugesFresh && this.unmovedRead && this.stillMs >= patienceMs
          ? 'stuck'
          : undefined;
    // After a loss too: what the engine still counts may stand there for ever.
    if (ends) this.state = ends;
    else if (this.state !== 'lost' && this.state !== 'stuck')
      this.state = this.quietMs >= QUIET_MS ? 'quiet' : paused ? 'paused' : undefined;
    return ends;
  }
}
