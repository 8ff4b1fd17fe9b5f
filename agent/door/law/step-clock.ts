import { prefillBaseMs, prefillWorkMs } from '../../../shared/predictor/step-law.ts';
import { median } from '../../../shared/quantile.ts';
import type { LawFit } from './law-fit.ts';

/** A request as the step clock sees it; the ledger's entries have this shape. */
export interface ClockedRequest {
  /** clock ms when the door handed it to the engine */
  readonly startedMs: number;
  /** uncached prompt tokens, and those found cached */
  readonly ownTokens: number;
  readonly hitTokens: number;
  /** clock ms of its newest token; undefined before the first */
  lastTokenMs: number | undefined;
  /** true if nothing else was in flight when it came */
  readonly foundIdle: boolean;
}

/** The batch that the ledger believes is running at this moment. */
export interface BatchView {
  decoding: number;
  contextTokens: number;
  /** requests without a first token */
  pending: number;
  /** of those: the ones that were there when the step began, so that the engine may have prefilled them in it */
  pendingBefore: number;
}

interface Burst {
  atMs: number;
  /** duration of the step that ended with this burst, by the median stream; undefined if no stream ran through it */
  stepMs: number | undefined;
  /** the batch as the step began */
  batch: BatchView;
  firstTokens: number;
}

/** Tokens of one step arrive together; a longer silence separates two steps. */
const BURST_GAP_MS = 4;
/**
 * Two tokens of a stream closer than this are of one step (several sequences in one answer), or were held up together
 * on the way.
 */
const MIN_STEP_MS = 1;
/** Two tokens of a stream further apart than this are not one step. */
const MAX_STEP_MS = 4000;
const HISTORY = 128;

/**
 * Reads the engine's step times off the tokens that pass the door: in continuous batching each running stream gets one
 * token per step, so the time between two of them is a step, whose batch the ledger knows. Steps in which nothing was
 * prefilled feed the decode part of the law; once a request's first token shows which steps its prompt took, those feed
 * the prefill part, if no other prompt can have been in them.
 */
export class StepClock {
  private readonly fit: LawFit;
  private readonly maxBatchedTokens: number;
  private history: Burst[] = [];
  private openGaps: number[] = [];
  private openAtMs = -Infinity;
  private openEndMs = -Infinity;
  private openFirstTokens: ClockedRequest[] = [];
  private batchAtStepStart: BatchView | undefined;

  constructor(fit: LawFit, maxBatchedTokens: number) {
    this.fit = fit;
    this.maxBatchedTokens = maxBatchedTokens;
  }

  /**
   * A chunk of a stream arrived. `batchNow` is called when this token opens a new burst, with the time at which the
   * step that it ends began, and must describe the batch before this token is accounted for. Call before updating
   * `request.lastTokenMs`.
   */
  onToken(request: ClockedRequest, nowMs: number, batchNow: (stepStartMs: number) => BatchView): void {
    const gapMs = request.lastTokenMs === undefined ? undefined : nowMs - request.lastTokenMs;
    // A stream gets one token a step: its second token is the next step's, however short the silence between the two.
    const repeated = gapMs !== undefined && gapMs >= MIN_STEP_MS && (request.lastTokenMs as number) >= this.openAtMs;
    if (repeated || nowMs - this.openEndMs > BURST_GAP_MS) {
      this.closeBurst();
      this.batchAtStepStart = batchNow(this.openAtMs);
      this.openAtMs = nowMs;
    }
    this.openEndMs = nowMs;
    if (request.lastTokenMs === undefined) this.openFirstTokens.push(request);
    else if (gapMs !== undefined && gapMs >= MIN_STEP_MS && gapMs <= MAX_STEP_MS) this.openGaps.push(gapMs);
  }

  /** When the step that runs now began: with the newest burst. −∞ before any. */
  get stepStartMs(): number {
    return this.openAtMs;
  }

  /** Forgets the running burst and all history: the engine restarted. */
  reset(): void {
    this.history = [];
    this.openGaps = [];
    this.openFirstTokens = [];
    this.openAtMs = -Infinity;
    this.openEndMs = -Infinity;
    this.batchAtStepStart = undefined;
  }

  private closeBurst(): void {
    const batch = this.batchAtStepStart;
    if (batch === undefined) return;
    const stepMs = median(this.openGaps) ?? undefined;
    const burst: Burst = { atMs: this.openAtMs, stepMs, batch, firstTokens: this.openFirstTokens.length };
    this.history.push(burst);
    if (this.history.length > HISTORY) this.history.shift();
    if (burst.firstTokens === 0) this.learnDecode(burst);
    else this.learnPrefill(burst, this.openFirstTokens);
    this.openGaps = [];
    this.openFirstTokens = [];
  }

  /** A step is a plain decode if nothing that waits for its first token was there when it began. */
  private learnDecode(burst: Burst): void {
    const { batch, stepMs } = burst;
    if (stepMs === undefined || batch.pendingBefore > 0 || batch.decoding === 0) return;
    this.fit.addDecodeStep(stepMs, batch.decoding, batch.contextTokens);
  }

  private learnPrefill(burst: Burst, first: readonly ClockedRequest[]): void {
    const [request] = first;
    if (!request) return;
    const law = this.fit.state();
    if (first.length === 1 && request.foundIdle && burst.batch.pending === 1 && burst.batch.decoding === 0) {
      const steps = Math.max(1, Math.ceil(request.ownTokens / this.maxBatchedTokens));
      const inSteps = steps * law.c0 + prefillWorkMs(law, request.ownTokens, request.hitTokens, 0);
      this.learnIdle(burst.atMs - request.startedMs, inSteps, law.frontEndMs, steps, request);
      return;
    }
    if (burst.stepMs === undefined) return;
    if (first.length === 1) this.learnChunks(burst, request);
    else this.learnTogether(burst, first);
  }

  /** Several prompts in one step: they fit its budget together, and none can have begun in the step before. */
  private learnTogether(burst: Burst, first: readonly ClockedRequest[]): void {
    const before = this.history.at(-2);
    if (!before || before.batch.pendingBefore > before.firstTokens || burst.batch.pendingBefore !== first.length)
      return;
    let tokens = 0;
    let pairs = 0;
    for (const { ownTokens, hitTokens } of first) {
      tokens += ownTokens;
      pairs += ownTokens * (hitTokens + ownTokens / 2);
    }
    if (tokens > this.maxBatchedTokens - burst.batch.decoding) return;
    this.fit.addPrefillStep(burst.stepMs as number, burst.batch.decoding, burst.batch.contextTokens, tokens, pairs);
  }

  /**
   * An idle engine shows front end and prefill in one sum: what lies within twice the known front-end time of the law's
   * own estimate belongs to the front end when the prompt is short, and to the prefill when it is long.
   */
  private learnIdle(
    ttftMs: number,
    inStepsMs: number,
    frontEndMs: number,
    steps: number,
    request: ClockedRequest,
  ): void {
    if (request.ownTokens <= 128) this.fit.addFrontEnd(ttftMs - inStepsMs);
    else if (steps === 1 && ttftMs > frontEndMs) {
      this.fit.addPrefillStep(
        ttftMs - frontEndMs,
        0,
        0,
        request.ownTokens,
        request.ownTokens * (request.hitTokens + request.ownTokens / 2),
      );
    }
  }

  /** The prompt took the last n steps, all chunks but the last as large as the budget left beside the decodes. */
  private learnChunks(burst: Burst, request: ClockedRequest): void {
    const budget = Math.max(1, this.maxBatchedTokens - burst.batch.decoding);
    const steps = Math.ceil(request.ownTokens / budget);
    const at = this.history.length - steps;
    if (at < 1) return;
    const involved = this.history.slice(at);
    const startMs = (this.history[at - 1] as Burst).atMs;
    const alone = involved.every(
      (one, k) =>
        one.batch.pendingBefore === 1 &&
        one.stepMs !== undefined &&
        (k === involved.length - 1 || one.firstTokens === 0),
    );
    if (!alone || request.startedMs > startMs) return;
    let context = request.hitTokens;
    let left = request.ownTokens;
    for (const step of involved) {
      const tokens = Math.min(left, budget);
      this.fit.addPrefillStep(
        step.stepMs as number,
        step.batch.decoding,
        step.batch.contextTokens,
        tokens,
        tokens * (context + tokens / 2),
      );
      context += tokens;
      left -= tokens;
    }
  }
}

/** Milliseconds from admission to first token that the law expects of a request which is alone in prefill. */
export function expectedPrefillMs(
  fit: LawFit,
  ownTokens: number,
  hitTokens: number,
  batch: BatchView,
  maxBatchedTokens: number,
): number {
  const law = fit.state();
  const steps = Math.max(1, Math.ceil(ownTokens / Math.max(1, maxBatchedTokens - batch.decoding)));
  return (
    law.frontEndMs +
    steps * prefillBaseMs(law, batch.decoding, batch.contextTokens) +
    prefillWorkMs(law, ownTokens, hitTokens, batch.decoding)
  );
}
