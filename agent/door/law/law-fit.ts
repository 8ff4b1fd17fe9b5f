import type { LawState, StepLaw } from '../../../shared/predictor/step-law.ts';
import { median } from '../../../shared/quantile.ts';
import { ForgettingFit } from './forgetting-fit.ts';
import { PrefillFit } from './prefill-fit.ts';

/**
 * Relative errors count alike, so a step is weighted by the inverse square of its length: of the longer of what was
 * seen and what was expected, or a long step that was misread as a short one would outweigh all others.
 */
function weightOf(ms: number, predictedMs: number): number {
  return 1 / Math.max(ms, predictedMs) ** 2;
}

/** A typical step that the shrinkage is measured in: 16 sequences over 16k tokens. */
const DECODE_SCALES = [1, 16, 16_000] as const;
const DECODE_WINDOW = 600;
/** Average steps that the prior counts as. */
const DECODE_SHRINKAGE = 4;
/**
 * Observations that may be refused in a row before the law itself is taken to have changed (throttling, another
 * tenant), whatever they say.
 */
const MAX_REFUSED = 12;
/** So many are enough where they say the same: misread steps scatter, and a change of speed is one factor for all. */
const AGREED = 5;
/** Ratios say the same within this factor of their median, and a share of them this high must. */
const AGREED_WITHIN = 1.25;
const AGREED_SHARE = 0.8;
/** Observations after which a part of the law is known well enough to tell a changed speed from a bad guess. */
const SETTLED = 30;
const PREFILL_SETTLED = 8;
/**
 * Share of the old observations that outlives such a change: enough to keep the law's shape, little enough for a new
 * shape to win.
 */
const KEPT_AFTER_CHANGE = 0.25;
/** The same of prefill labels, which are few: stretched, they are right again. */
const KEPT_PREFILL = 0.5;
/**
 * Prefill labels are compared with the last few: one whose step lasted this many times longer or shorter than those say
 * was read from the wrong step.
 */
const PREFILL_COMPARED_MAX = 9;
const PREFILL_COMPARED_MIN = 5;
const PREFILL_OFF = 1.7;
/** Before there are a few to compare with, a label may be this many times off what the law expects. */
const PREFILL_OFF_FIRST = 4;
/** A prefill that costs nothing may, by the noise of the step, seem to cost a little less. */
const PREFILL_NOISE = 0.3;
/** Observations after which a part of the law no longer takes new priors. */
const STARTED = 4;
/** Until a few steps agree, a label may be off by this much: GPUs and models differ by less, misread tokens by more. */
const FIRST_OFF = 10;
/** No engine steps faster than this; it also keeps the inverse squares finite. */
const C0_MIN_MS = 0.1;
const FRONT_END_RATE = 0.1;
const FRONT_END_MAX_MS = 500;

/**
 * Fits an instance's step-time law from the steps that the step clock sees. Decode-only steps give c0, c3, c4; steps
 * with a known prefill chunk give c1, c2 of what they last longer. Shrunk towards the kind's or the fleet's law (from
 * the routing table), so that an unknown GPU predicts sensibly from the first request on. Method: docs/learning.md.
 */
export class LawFit {
  private prior!: StepLaw;
  private decode!: ForgettingFit;
  private prefill!: PrefillFit;
  private frontEndMs = 0;
  private frontEndSamples = 0;
  private residualMs = 0;
  /** how much slower the instance has become than its prior says, by the changes noticed */
  private slowdown = 1;
  /** observed over predicted time of the steps refused in a row */
  private refused: number[] = [];
  /** observed over expected time of the last prefill labels, refused ones included */
  private prefillRatios: number[] = [];
  private cached: LawState | undefined;

  constructor(prior: LawState) {
    this.reset(prior);
  }

  /** Forgets every observation: the engine restarted, perhaps on other hardware or with another model. */
  reset(prior: LawState): void {
    this.prior = prior;
    this.frontEndMs = prior.frontEndMs;
    this.frontEndSamples = 0;
    this.residualMs = 0;
    this.slowdown = 1;
    this.refused = [];
    this.prefillRatios = [];
    this.decode = new ForgettingFit([prior.c0, prior.c3, prior.c4], DECODE_SCALES, DECODE_WINDOW, DECODE_SHRINKAGE);
    this.prefill = new PrefillFit(prior);
    this.cached = undefined;
  }

  /**
   * A better prior has come with a table. It is for the start: a part of the law that has been seen at work keeps the
   * prior that it began with, since the fleet's laws hold this instance's own, and a fit that leans on itself would
   * confirm its first error.
   */
  setPrior(prior: LawState): void {
    const { c0, c1, c2, c3, c4, c5, t0 } = prior;
    this.prior = { ...this.prior };
    if (this.decode.samples < STARTED) Object.assign(this.prior, { c0, c3, c4 });
    if (this.prefill.samples < STARTED) Object.assign(this.prior, { c1, c2, c5, t0 });
    if (this.frontEndSamples === 0) this.frontEndMs = prior.frontEndMs;
    this.solve();
  }

  /** A step of `decoding` sequences over `contextTokens` that lasted `ms` and had no prefill in it. */
  addDecodeStep(ms: number, decoding: number, contextTokens: number): void {
    const x = [1, decoding, contextTokens];
    const predicted = this.decode.predict(x);
    if (!this.accepts(ms, predicted)) return;
    this.decode.add(x, ms, weightOf(ms, predicted));
    if (this.decode.samples < 64 || Math.round(this.decode.samples) % 8 === 0) this.solveDecode();
  }

  /** A step that besides its decodes computed `tokens` of prefill with `pairs` query-key pairs. */
  addPrefillStep(ms: number, decoding: number, contextTokens: number, tokens: number, pairs: number): void {
    const base = this.decode.predict([1, decoding, contextTokens]);
    if (tokens < 16) return;
    const chunk = { tokens, pairs, decoding, contextTokens };
    const predicted = base + this.prefill.predict(chunk);
    if (this.refused.length > 0) {
      this.notePrefillOfOtherSpeed(ms / predicted);
      return;
    }
    const extra = ms - base;
    if (extra < -PREFILL_NOISE * base) return;
    if (!this.acceptsPrefill(ms / predicted)) return;
    this.prefill.add(chunk, extra, weightOf(ms, predicted));
    this.solvePrefill();
  }

  /**
   * Time to first token of a request that found the engine idle, less the steps that the law gives it: what the front
   * end takes.
   */
  addFrontEnd(ms: number): void {
    this.frontEndSamples += 1;
    const rate = Math.max(FRONT_END_RATE, 1 / (this.frontEndSamples + 1));
    this.frontEndMs += rate * (Math.min(FRONT_END_MAX_MS, Math.max(0, ms)) - this.frontEndMs);
    this.cached = undefined;
  }

  state(): LawState {
    this.cached ??= {
      c0: Math.max(C0_MIN_MS, this.decode.weights[0] as number),
      c1: this.prefill.c1,
      c2: this.prefill.c2,
      c3: this.decode.weights[1] as number,
      c4: this.decode.weights[2] as number,
      c5: this.prefill.c5,
      t0: this.prefill.t0,
      frontEndMs: this.frontEndMs,
      samples: Math.round(this.decode.samples + this.prefill.samples),
      residualMs: this.residualMs,
    };
    return this.cached;
  }

  /** Refuses single outliers, but takes a run of them for a change of the law. */
  private accepts(ms: number, predicted: number): boolean {
    if (!(ms >= C0_MIN_MS) || ms < predicted / FIRST_OFF || ms > predicted * FIRST_OFF) return false;
    let residual = Math.abs(ms - predicted);
    const settled = this.decode.samples >= SETTLED;
    if (settled && residual > Math.max(6 * this.residualMs, 0.25 * predicted)) {
      const factor = this.refuse(ms / predicted);
      if (factor === undefined) return false;
      residual = Math.abs(ms - predicted * factor);
    }
    this.refused.length = 0;
    // Moves by a fixed step towards the side of the newest residual: an online median.
    const step = Math.max(0.02, 0.05 * this.residualMs);
    this.residualMs = Math.max(0, this.residualMs + (residual > this.residualMs ? step : -step));
    return true;
  }

  /**
   * Notes a step that lasted `ratio` times as long as predicted. Returns the factor by which the law has been
   * stretched, once enough steps speak for one.
   */
  private refuse(ratio: number): number | undefined {
    this.refused.push(ratio);
    const factor = median(this.refused) as number;
    const agreed = this.refused.filter((one) => one <= factor * AGREED_WITHIN && one >= factor / AGREED_WITHIN).length;
    if (this.refused.length < MAX_REFUSED && (agreed < AGREED || agreed < AGREED_SHARE * this.refused.length))
      return undefined;
    this.changeSpeed(factor);
    this.refused.length = 0;
    return factor;
  }

  /**
   * While a change of speed is suspected a prefill step teaches nothing, since the decode part that would be taken off
   * it may be the wrong one. But under load most steps hold some prefill, so it speaks for the change, or none would be
   * noticed for many seconds.
   */
  private notePrefillOfOtherSpeed(ratio: number): void {
    const isFar = ratio > PREFILL_OFF || ratio < 1 / PREFILL_OFF;
    if (this.prefill.samples >= PREFILL_SETTLED && isFar && ratio <= FIRST_OFF && ratio >= 1 / FIRST_OFF)
      this.refuse(ratio);
  }

  /**
   * What changes while an engine runs is above all its speed: clocks throttle, another tenant takes its share. So the
   * whole law is stretched, its prior included, which is right at once where that is all, and the old observations lose
   * weight, so that new ones can bend it.
   */
  private changeSpeed(factor: number): void {
    this.slowdown *= factor;
    this.residualMs *= factor;
    this.prefillRatios = [];
    this.decode.rescale(factor, KEPT_AFTER_CHANGE);
    this.prefill.rescale(factor, KEPT_PREFILL);
    this.solve();
  }

  /**
   * A busy host delays the tokens of a step, and a label then belongs to another step: such labels stand out from the
   * others. They are compared with one another and not with the law, which may be wrong still: where all labels say the
   * same, they are right.
   */
  private acceptsPrefill(ratio: number): boolean {
    this.prefillRatios.push(ratio);
    if (this.prefillRatios.length > PREFILL_COMPARED_MAX) this.prefillRatios.shift();
    if (this.prefillRatios.length < PREFILL_COMPARED_MIN)
      return ratio <= PREFILL_OFF_FIRST && ratio >= 1 / PREFILL_OFF_FIRST;
    const middle = median(this.prefillRatios) as number;
    return ratio <= middle * PREFILL_OFF && ratio >= middle / PREFILL_OFF;
  }

  private solve(): void {
    this.solveDecode();
    this.solvePrefill();
  }

  private solveDecode(): void {
    const { prior, slowdown } = this;
    this.decode.solve([prior.c0 * slowdown, prior.c3 * slowdown, prior.c4 * slowdown]);
    this.cached = undefined;
  }

  private solvePrefill(): void {
    this.prefill.solve(this.prior, this.slowdown);
    this.cached = undefined;
  }
}
