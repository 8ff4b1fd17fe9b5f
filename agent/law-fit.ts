import type { LawState, StepLaw } from '../shared/predictor/step-law.ts';
import { median } from '../shared/trust.ts';

/**
 * Relative errors count alike, so a step is weighted by the inverse square of its length: of the longer of what was seen and what was expected, or a long
 * step that was misread as a short one would outweigh all others.
 */
function weightOf(ms: number, predictedMs: number): number {
  return 1 / Math.max(ms, predictedMs) ** 2;
}

/** A regression y ≈ Σ w_j·x_j with w_j ≥ 0: least squares with exponential forgetting, shrunk towards a prior. */
class ForgettingFit {
  private readonly n: number;
  private readonly keep: number;
  private readonly a: Float64Array;
  private readonly b: Float64Array;
  private readonly scales: readonly number[];
  private readonly shrinkage: number;
  weights: number[];
  samples = 0;
  /** sum of the observations' weights, forgotten like them */
  private weightSum = 0;

  /**
   * `window`: observations after which the weight of one has fallen to 1/e. `scales`: typical size of each x, which makes the shrinkage equal
   * to `shrinkage` observations at that size.
   */
  constructor(prior: readonly number[], scales: readonly number[], window: number, shrinkage: number) {
    this.n = prior.length;
    this.keep = 1 - 1 / window;
    this.a = new Float64Array(this.n * this.n);
    this.b = new Float64Array(this.n);
    this.scales = scales;
    this.shrinkage = shrinkage;
    this.weights = [...prior];
  }

  predict(x: readonly number[]): number {
    let y = 0;
    for (let i = 0; i < this.n; i++) y += (this.weights[i] as number) * (x[i] as number);
    return y;
  }

  add(x: readonly number[], y: number, weight: number): void {
    const { n, a, b, keep } = this;
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) a[i * n + j] = (a[i * n + j] as number) * keep + weight * (x[i] as number) * (x[j] as number);
      b[i] = (b[i] as number) * keep + weight * (x[i] as number) * y;
    }
    this.samples = this.samples * keep + 1;
    this.weightSum = this.weightSum * keep + weight;
  }

  /** Takes every observation so far to have lasted `factor` times as long (its weight falls with the square), and keeps `share` of them. */
  rescale(factor: number, share: number): void {
    for (let i = 0; i < this.a.length; i++) this.a[i] = ((this.a[i] as number) * share) / (factor * factor);
    for (let i = 0; i < this.n; i++) {
      this.b[i] = ((this.b[i] as number) * share) / factor;
      this.weights[i] = (this.weights[i] as number) * factor;
    }
    this.samples *= share;
    this.weightSum *= share / (factor * factor);
  }

  /** Solves for the weights; a negative one is set to zero and the rest solved again. `prior` is what the shrinkage pulls towards. */
  solve(prior: readonly number[]): void {
    if (this.weightSum <= 0) {
      prior.forEach((w, i) => (this.weights[i] = w));
      return;
    }
    const active = prior.map((_, i) => i);
    for (;;) {
      const solution = this.solveActive(active, prior);
      const worst = solution.reduce((at, w, k) => (w < (at < 0 ? 0 : (solution[at] as number)) ? k : at), -1);
      if (worst < 0 || active.length === 1) {
        this.weights.fill(0);
        active.forEach((i, k) => (this.weights[i] = Math.max(0, solution[k] as number)));
        return;
      }
      active.splice(worst, 1);
    }
  }

  private solveActive(active: readonly number[], prior: readonly number[]): number[] {
    const m = active.length;
    const meanWeight = this.weightSum / this.samples;
    const rows = active.map((i) => {
      const ridge = (this.shrinkage * meanWeight) * (this.scales[i] as number) ** 2;
      const row = active.map((j) => (this.a[i * this.n + j] as number) + (i === j ? ridge : 0));
      row.push((this.b[i] as number) + ridge * (prior[i] as number));
      return row;
    });
    return gauss(rows, m);
  }
}

/** Solves a small dense system, rows = [A | b], with partial pivoting. The ridge keeps A regular. */
function gauss(rows: number[][], m: number): number[] {
  for (let col = 0; col < m; col++) {
    let pivot = col;
    for (let r = col + 1; r < m; r++) if (Math.abs(rows[r]?.[col] ?? 0) > Math.abs(rows[pivot]?.[col] ?? 0)) pivot = r;
    [rows[col], rows[pivot]] = [rows[pivot] as number[], rows[col] as number[]];
    const head = rows[col] as number[];
    for (let r = col + 1; r < m; r++) {
      const row = rows[r] as number[];
      const factor = (row[col] as number) / (head[col] as number);
      for (let k = col; k <= m; k++) row[k] = (row[k] as number) - factor * (head[k] as number);
    }
  }
  const x = Array.from({ length: m }, () => 0);
  for (let r = m - 1; r >= 0; r--) {
    const row = rows[r] as number[];
    let y = row[m] as number;
    for (let k = r + 1; k < m; k++) y -= (row[k] as number) * (x[k] as number);
    x[r] = y / (row[r] as number);
  }
  return x;
}

/** A typical step that the shrinkage is measured in: 16 sequences over 16k tokens; a prefill of 512 tokens. */
const DECODE_SCALES = [1, 16, 16_000] as const;
const PREFILL_SCALES = [512, 512 * 2048] as const;
const DECODE_WINDOW = 600;
const PREFILL_WINDOW = 120;
/** Average steps that the prior counts as: prefill labels are rarer, and nearly all true. */
const DECODE_SHRINKAGE = 4;
const PREFILL_SHRINKAGE = 1;
/** Observations that may be refused in a row before the law itself is taken to have changed (throttling, another tenant). */
const MAX_REFUSED = 12;
/** Share of the old observations that outlives such a change: enough to keep the law's shape, little enough for a new shape to win. */
const KEPT_AFTER_CHANGE = 0.25;
/** The same of prefill labels, which are few: stretched, they are right again. */
const KEPT_PREFILL = 0.5;
/** Prefill labels are compared with the last few: one whose cost per token is off from their median by more than this was read from the wrong step. */
const PREFILL_COMPARED_MAX = 9;
const PREFILL_COMPARED_MIN = 5;
const PREFILL_OFF = 1.5;
/** Before there are a few to compare with, a label may be this many times off what the law expects. */
const PREFILL_OFF_FIRST = 4;
/** c2 / c1 of an 8B model on any GPU, roughly: makes labels of short and long prompts comparable. */
const PAIRS_PER_TOKEN = 1e-4;
/** Observations after which a part of the law no longer takes new priors. */
const STARTED = 4;
/** Until a few steps agree, a label may be off by this much: GPUs and models differ by less, misread tokens by more. */
const FIRST_OFF = 10;
/** No engine steps faster than this; it also keeps the inverse squares finite. */
const C0_MIN_MS = 0.1;
const FRONT_END_RATE = 0.1;
const FRONT_END_MAX_MS = 500;

/**
 * Fits an instance's step-time law from the steps that the step clock sees. Decode-only steps give c0, c3, c4; steps with a known prefill
 * chunk give c1, c2 of what they last longer. Shrunk towards the kind's or the fleet's law (from the routing table), so that an unknown GPU
 * predicts sensibly from the first request on. Method: docs/learning.md.
 */
export class LawFit {
  private prior!: StepLaw;
  private decode!: ForgettingFit;
  private prefill!: ForgettingFit;
  private frontEndMs = 0;
  private frontEndSamples = 0;
  private residualMs = 0;
  /** how much slower the instance has become than its prior says, by the changes noticed */
  private slowdown = 1;
  /** observed over predicted time of the steps refused in a row */
  private refused: number[] = [];
  /** ms per token of the last prefill labels, refused ones included */
  private prefillCosts: number[] = [];
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
    this.prefillCosts = [];
    this.decode = new ForgettingFit([prior.c0, prior.c3, prior.c4], DECODE_SCALES, DECODE_WINDOW, DECODE_SHRINKAGE);
    this.prefill = new ForgettingFit([prior.c1, prior.c2], PREFILL_SCALES, PREFILL_WINDOW, PREFILL_SHRINKAGE);
    this.cached = undefined;
  }

  /**
   * A better prior has come with a table. It is for the start: a part of the law that has been seen at work keeps the prior that it began with, since the
   * fleet's laws hold this instance's own, and a fit that leans on itself would confirm its first error.
   */
  setPrior(prior: LawState): void {
    const { c0, c1, c2, c3, c4 } = prior;
    this.prior = { ...this.prior };
    if (this.decode.samples < STARTED) Object.assign(this.prior, { c0, c3, c4 });
    if (this.prefill.samples < STARTED) Object.assign(this.prior, { c1, c2 });
    if (this.frontEndSamples === 0) this.frontEndMs = prior.frontEndMs;
    this.solve();
  }

  /** A step of `decoding` sequences over `contextTokens` that lasted `ms` and had no prefill in it. */
  addDecodeStep(ms: number, decoding: number, contextTokens: number): void {
    const x = [1, decoding, contextTokens];
    const predicted = this.decode.predict(x);
    if (!this.accepts(ms, predicted)) return;
    this.decode.add(x, ms, weightOf(ms, predicted));
    if (this.decode.samples < 64 || Math.round(this.decode.samples) % 8 === 0) this.solve();
  }

  /** A step that besides its decodes computed `tokens` of prefill with `pairs` query-key pairs. */
  addPrefillStep(ms: number, decoding: number, contextTokens: number, tokens: number, pairs: number): void {
    const base = this.decode.predict([1, decoding, contextTokens]);
    const extra = ms - base;
    // While steps are being refused, the decode part that is taken off here may be the wrong one.
    if (extra <= 0 || tokens < 16 || this.refused.length > 0) return;
    const x = [tokens, pairs];
    const predicted = base + this.prefill.predict(x);
    if (!this.acceptsPrefill(extra / (tokens + PAIRS_PER_TOKEN * pairs), ms / predicted)) return;
    this.prefill.add(x, extra, weightOf(ms, predicted));
    this.solve();
  }

  /** Time to first token of a request that found the engine idle, less the steps that the law gives it: what the front end takes. */
  addFrontEnd(ms: number): void {
    this.frontEndSamples += 1;
    const rate = Math.max(FRONT_END_RATE, 1 / (this.frontEndSamples + 1));
    this.frontEndMs += rate * (Math.min(FRONT_END_MAX_MS, Math.max(0, ms)) - this.frontEndMs);
    this.cached = undefined;
  }

  state(): LawState {
    this.cached ??= {
      c0: Math.max(C0_MIN_MS, this.decode.weights[0] as number),
      c1: this.prefill.weights[0] as number,
      c2: this.prefill.weights[1] as number,
      c3: this.decode.weights[1] as number,
      c4: this.decode.weights[2] as number,
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
    const settled = this.decode.samples >= 30;
    if (settled && residual > Math.max(6 * this.residualMs, 0.25 * predicted)) {
      this.refused.push(ms / predicted);
      if (this.refused.length < MAX_REFUSED) return false;
      const factor = median(this.refused) as number;
      this.changeSpeed(factor);
      residual = Math.abs(ms - predicted * factor);
    }
    this.refused.length = 0;
    // Moves by a fixed step towards the side of the newest residual: an online median.
    const step = Math.max(0.02, 0.05 * this.residualMs);
    this.residualMs = Math.max(0, this.residualMs + (residual > this.residualMs ? step : -step));
    return true;
  }

  /**
   * What changes while an engine runs is above all its speed: clocks throttle, another tenant takes its share. So the whole law is stretched, its
   * prior included, which is right at once where that is all, and the old observations lose weight, so that new ones can bend it.
   */
  private changeSpeed(factor: number): void {
    this.slowdown *= factor;
    this.residualMs *= factor;
    this.prefillCosts = this.prefillCosts.map((cost) => cost * factor);
    this.decode.rescale(factor, KEPT_AFTER_CHANGE);
    this.prefill.rescale(factor, KEPT_PREFILL);
    this.solve();
  }

  /**
   * A busy host delays the tokens of a step, and a label then belongs to another step: such labels stand out from the others. They are compared
   * with one another and not with the law, which may be wrong still: where all labels say the same, they are right.
   */
  private acceptsPrefill(msPerToken: number, overPredicted: number): boolean {
    this.prefillCosts.push(msPerToken);
    if (this.prefillCosts.length > PREFILL_COMPARED_MAX) this.prefillCosts.shift();
    if (this.prefillCosts.length < PREFILL_COMPARED_MIN) return overPredicted <= PREFILL_OFF_FIRST && overPredicted >= 1 / PREFILL_OFF_FIRST;
    const middle = median(this.prefillCosts) as number;
    return msPerToken <= middle * PREFILL_OFF && msPerToken >= middle / PREFILL_OFF;
  }

  private solve(): void {
    const [c0, c1, c2, c3, c4] = [this.prior.c0, this.prior.c1, this.prior.c2, this.prior.c3, this.prior.c4].map((c) => c * this.slowdown) as [number, number, number, number, number];
    this.decode.solve([c0, c3, c4]);
    this.prefill.solve([c1, c2]);
    this.cached = undefined;
  }
}
