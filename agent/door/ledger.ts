import { engineHitTokens } from '../../shared/blocks/hit-tokens.ts';
import type { Clock } from '../../shared/env.ts';
import type { EntrySeen, LedgerTotals } from '../../shared/instance.ts';
import { billedTokens, prefillBaseMs, prefillWorkMs } from '../../shared/predictor/step-law.ts';
import { LawFit } from './law/law-fit.ts';
import type { CacheLook, CacheOutcome, Sequence } from './cache/records.ts';
import type { DoorCache } from './guarded-cache.ts';
import type { LedgerPrompt } from '../request/prompt.ts';
import { SeenTracker } from './seen.ts';
import { type BatchView, type ClockedRequest, expectedPrefillMs, StepClock } from './law/step-clock.ts';

/** What the engine told of a request at its end; undefined where it did not. */
export interface LedgerOutcome
  extends
    Pick<CacheOutcome, 'outputTokens' | 'cachedTokens'>,
    Partial<Omit<CacheOutcome, 'outputTokens' | 'cachedTokens'>> {}

/** One request in flight at the engine. */
export interface LedgerRequest extends ClockedRequest {
  readonly prompt: LedgerPrompt;
  readonly look: CacheLook;
  readonly promptTokens: number;
  readonly hitTokens: number;
  readonly ownTokens: number;
  /** its blocks at the engine; undefined while it waits */
  sequence: Sequence | undefined;
  admittedMs: number;
  outputTokens: number;
  /** when an answer that is not streamed is taken to begin its decoding */
  silentFirstMs: number;
  closed: boolean;
}

export interface LedgerLimits {
  kvTokens: number;
  blockTokens: number;
  maxNumSeqs: number;
  maxBatchedTokens: number;
}

const UNTOLD: CacheOutcome = {
  promptTokens: undefined,
  outputTokens: undefined,
  cachedTokens: undefined,
  answer: undefined,
  source: undefined,
};
/** Time constant of ρ, the share of time that admitted prefill work takes. */
const RHO_TAU_MS = 30_000;
const OUTPUT_RATE = 0.05;
/** A step that began longer ago says nothing of the one that runs now. */
const MAX_STEP_AGE_MS = 10_000;
/** A step that should be over, but has shown no token yet, still has a little of its prefill before it. */
const MAX_STEP_SHARE = 0.95;

/**
 * The door's exact account of every request in flight on its instance. Which of them wait, prefill or decode is an
 * estimate: admission is replayed as vLLM does it (first come, first served, while the KV cache and the batch have
 * room), first tokens correct it.
 */
export class Ledger {
  readonly fit: LawFit;
  readonly seen = new SeenTracker();
  /** called when a request comes, gets its first token, or leaves */
  onChange: () => void = () => undefined;
  /** called when the law could not take a step in: it only forecasts, so the request goes on */
  onFault: (error: unknown) => void = () => undefined;
  private readonly clock: Clock;
  private readonly cache: DoorCache;
  private readonly stepClock: StepClock;
  private limits: LedgerLimits;
  private readonly requests = new Set<LedgerRequest>();
  private readonly queue: LedgerRequest[] = [];
  private running = 0;
  private headSinceMs = 0;
  private workSum = 0;
  private workAtMs = 0;
  private meanOutput = 0;

  constructor(clock: Clock, cache: DoorCache, fit: LawFit, limits: LedgerLimits) {
    this.clock = clock;
    this.cache = cache;
    this.fit = fit;
    this.limits = limits;
    this.stepClock = new StepClock(fit, limits.maxBatchedTokens);
  }

  get inFlight(): number {
    return this.requests.size;
  }

  setLimits(limits: LedgerLimits): void {
    this.limits = limits;
    this.admitWaiting();
  }

  /** A request goes to the engine. Its cached prefix is what the view holds at this moment. */
  open(prompt: LedgerPrompt): LedgerRequest {
    const nowMs = this.clock.nowMs();
    const look = this.look(prompt);
    const { promptTokens, hitTokens } = look;
    const request: LedgerRequest = {
      prompt,
      look,
      promptTokens,
      hitTokens,
      ownTokens: Math.max(1, promptTokens - hitTokens),
      startedMs: nowMs,
      foundIdle: this.requests.size === 0,
      lastTokenMs: undefined,
      sequence: undefined,
      admittedMs: nowMs,
      outputTokens: 0,
      silentFirstMs: Infinity,
      closed: false,
    };
    this.requests.add(request);
    this.queue.push(request);
    this.admitWaiting();
    this.onChange();
    return request;
  }

  /**
   * A rough forecast of when its next byte comes, ms from now: the prefill that is pending, and for an answer that is
   * no stream all of its decoding.
   */
  forecastMs({ prompt }: LedgerRequest): number {
    const { pendingTokens, decoding, decodeContextTokens } = this.totals();
    const law = this.fit.state();
    const stepMs = prefillBaseMs(law, decoding + 1, decodeContextTokens);
    const prefillMs = law.frontEndMs + stepMs + law.c1 * pendingTokens;
    return prompt.stream ? prefillMs : prefillMs + this.meanOutput * stepMs;
  }

  /** The longest step that the law predicts: a full batch of prompt tokens beside what decodes now, ms. */
  longestStepMs(): number {
    const { decoding, decodeContextTokens } = this.totals();
    const law = this.fit.state();
    return (
      prefillBaseMs(law, decoding, decodeContextTokens) +
      law.c1 * billedTokens(law, this.limits.maxBatchedTokens, 1, decoding)
    );
  }

  /** What the engine will find cached: what it holds, or what requests that wait ahead will have brought by then. */
  private look(prompt: LedgerPrompt): CacheLook {
    const look = this.cache.look(prompt);
    let shared = 0;
    for (const { prompt: ahead } of this.queue) shared = Math.max(shared, sharedBlocks(ahead.hashes, prompt.hashes));
    const hitTokens =
      shared === 0 ? 0 : engineHitTokens(look.ends[shared - 1] as number, look.promptTokens, this.limits.blockTokens);
    return hitTokens > look.hitTokens ? { ...look, hitTokens, hit: undefined } : look;
  }

  /** `tokens` more of a streamed answer came, the first with `tokens` = 1 at the latest. */
  tokens(request: LedgerRequest, tokens: number): void {
    if (request.closed) return;
    const nowMs = this.clock.nowMs();
    if (!request.sequence) this.admit(request, nowMs);
    try {
      this.stepClock.onToken(request, nowMs, (stepStartMs) => this.batch(stepStartMs));
    } catch (error) {
      this.onFault(error);
    }
    const first = request.lastTokenMs === undefined;
    if (first) this.headSinceMs = nowMs;
    request.lastTokenMs = nowMs;
    request.outputTokens += tokens;
    if (request.sequence && !this.cache.grow(request.sequence, tokens)) this.preempt(request);
    if (first) this.onChange();
  }

  /**
   * The request left the engine. `outcome`: what the engine told of it, if it told. `computed` false: it was refused,
   * or never reached the engine.
   */
  close(request: LedgerRequest, outcome: LedgerOutcome | undefined, computed = true): void {
    if (request.closed) return;
    request.closed = true;
    this.requests.delete(request);
    const queued = this.queue.indexOf(request);
    if (queued >= 0) this.queue.splice(queued, 1);
    if (request.sequence) {
      if (computed) this.cache.finish(request.sequence, { ...UNTOLD, ...outcome }, request.look);
      else this.cache.cancel(request.sequence);
      this.running -= 1;
    }
    const output = outcome?.outputTokens ?? 0;
    if (output > 0) this.meanOutput += (this.meanOutput === 0 ? 1 : OUTPUT_RATE) * (output - this.meanOutput);
    this.admitWaiting();
    this.onChange();
  }

  /**
   * The engine restarted: nothing is in flight any more, and its law is unknown again. Open requests end through their
   * own errors.
   */
  reset(): void {
    for (const request of this.requests) request.closed = true;
    this.requests.clear();
    this.queue.length = 0;
    this.running = 0;
    this.workSum = 0;
    this.meanOutput = 0;
    this.stepClock.reset();
    this.cache.clear();
  }

  totals(): LedgerTotals {
    const nowMs = this.clock.nowMs();
    let prefilling = 0;
    let decoding = 0;
    let pendingTokens = 0;
    let pendingPrompt = 0;
    let waitingTokens = 0;
    let context = 0;
    for (const request of this.requests) {
      if (!request.sequence) {
        waitingTokens += request.ownTokens;
        pendingTokens += request.ownTokens;
        pendingPrompt += request.promptTokens;
      } else if (request.lastTokenMs !== undefined || nowMs >= request.silentFirstMs) {
        decoding += 1;
        context += request.promptTokens + request.outputTokens;
      } else {
        prefilling += 1;
        pendingTokens += request.ownTokens;
        pendingPrompt += request.promptTokens;
      }
    }
    const pending = prefilling + this.queue.length;
    if (prefilling > 0)
      pendingTokens = Math.max(waitingTokens, pendingTokens - this.progressTokens(nowMs, decoding, context));
    return {
      inFlight: this.requests.size,
      waiting: this.queue.length,
      prefilling,
      decoding,
      pendingTokens,
      waitingTokens,
      pendingPromptTokens: pending > 0 ? pendingPrompt / pending : 0,
      decodeContextTokens: context,
      usedTokens: this.cache.usedTokens,
      workRatio: (this.workSum * Math.exp((this.workAtMs - nowMs) / RHO_TAU_MS)) / RHO_TAU_MS,
      meanOutputTokens: this.meanOutput,
      stepAgeMs: decoding > 0 && prefilling === 0 ? Math.min(MAX_STEP_AGE_MS, nowMs - this.stepClock.stepStartMs) : -1,
    };
  }

  seenBy(): EntrySeen[] {
    return this.seen.list();
  }

  private batch(stepStartMs: number): BatchView {
    let decoding = 0;
    let contextTokens = 0;
    let pending = 0;
    let pendingBefore = 0;
    for (const request of this.requests) {
      if (request.lastTokenMs === undefined) {
        pending += 1;
        if (request.startedMs <= stepStartMs) pendingBefore += 1;
      } else {
        decoding += 1;
        contextTokens += request.promptTokens + request.outputTokens;
      }
    }
    return { decoding, contextTokens, pending, pendingBefore };
  }

  /** First come, first served; the head of the line blocks those behind it. */
  private admitWaiting(): void {
    const nowMs = this.clock.nowMs();
    while (this.queue.length > 0) {
      const head = this.queue[0] as LedgerRequest;
      const fits =
        this.running < this.limits.maxNumSeqs && this.cache.usedTokens + this.claimOf(head) <= this.limits.kvTokens;
      // What an empty engine cannot hold, it refuses by itself; it must not block the line here.
      if (!fits && this.running > 0) return;
      this.admit(head, nowMs);
    }
  }

  private claimOf({ prompt, look, promptTokens, outputTokens }: LedgerRequest): number {
    return this.cache.claimTokens(prompt, look, promptTokens + outputTokens);
  }

  /**
   * The engine has no block for a token of `request`: the newest of the running requests loses its blocks and waits at
   * the head of the line (vLLM's scheduler, FCFS).
   */
  private preempt(request: LedgerRequest): void {
    let victim: LedgerRequest | undefined;
    for (const one of this.requests) if (one.sequence && (!victim || one.admittedMs >= victim.admittedMs)) victim = one;
    if (!victim || victim === request) return;
    this.cache.preempt(victim.sequence as Sequence);
    victim.sequence = undefined;
    this.running -= 1;
    this.queue.unshift(victim);
  }

  private admit(request: LedgerRequest, nowMs: number): void {
    const queued = this.queue.indexOf(request);
    if (queued >= 0) this.queue.splice(queued, 1);
    const { prompt } = request;
    request.sequence = this.cache.admit(prompt, request.look, request.outputTokens);
    request.admittedMs = nowMs;
    if (this.running === 0 || this.prefillIdle()) this.headSinceMs = nowMs;
    this.running += 1;
    const law = this.fit.state();
    this.workSum =
      this.workSum * Math.exp((this.workAtMs - nowMs) / RHO_TAU_MS) +
      prefillWorkMs(law, request.ownTokens, request.hitTokens, 0);
    this.workAtMs = nowMs;
    if (!prompt.stream) {
      request.silentFirstMs =
        nowMs +
        expectedPrefillMs(
          this.fit,
          request.ownTokens,
          request.hitTokens,
          this.batch(nowMs),
          this.limits.maxBatchedTokens,
        );
    }
  }

  private prefillIdle(): boolean {
    for (const request of this.requests) if (request.sequence && request.lastTokenMs === undefined) return false;
    return true;
  }

  /**
   * Prompt tokens that count as pending but that the law says are computed by now: whole chunks of the first prompt in
   * line, and of the step that runs now the share of its time that has passed.
   */
  private progressTokens(nowMs: number, decoding: number, context: number): number {
    const law = this.fit.state();
    const inPrefill = (request: LedgerRequest): boolean =>
      request.sequence !== undefined && request.lastTokenMs === undefined && nowMs < request.silentFirstMs;
    let head: LedgerRequest | undefined;
    for (const request of this.requests) if (!head && inPrefill(request)) head = request;
    if (!head) return 0;
    const budget = Math.max(1, this.limits.maxBatchedTokens - decoding);
    const base = prefillBaseMs(law, decoding, context);
    const stepMs = (tokens: number): number => base + law.c1 * billedTokens(law, tokens, 1, decoding);
    const readyMs = Math.max(this.headSinceMs, head.startedMs + law.frontEndMs);
    const wholeChunks = Math.min(
      Math.floor((head.ownTokens - 1) / budget),
      Math.max(0, Math.floor((nowMs - readyMs) / stepMs(budget))),
    );
    const done = wholeChunks * budget;
    const stepStartMs = decoding > 0 ? this.stepClock.stepStartMs : readyMs + wholeChunks * stepMs(budget);
    let inStep = -done;
    for (const request of this.requests)
      if (inPrefill(request) && request.startedMs + law.frontEndMs <= stepStartMs) inStep += request.ownTokens;
    if (inStep <= 0) return done;
    inStep = Math.min(inStep, budget);
    const share = (nowMs - stepStartMs) / stepMs(inStep);
    return done + inStep * Math.min(MAX_STEP_SHARE, Math.max(0, share));
  }
}

/** Leading blocks that two prompts share. A hash stands for its block and all before it, so it is found by halving. */
function sharedBlocks(a: Float64Array, b: Float64Array): number {
  let low = 0;
  let high = Math.min(a.length, b.length);
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (a[middle] === b[middle]) low = middle + 1;
    else high = middle;
  }
  return low;
}
