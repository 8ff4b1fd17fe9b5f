import type { LawState, StepLaw } from '../shared/predictor/step-law.ts';
import { median } from '../shared/trust.ts';

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
  }

  /** Takes every observation so far to have lasted `factor` times as long (its weight falls with the square), and keeps `share` of them. */
  rescale(factor: number, share: number): void {
    for (let i = 0; i < this.a.length; i++) this.a[i] = ((this.a[i] as number) * share) / (factor * factor);
    for (let i = 0; i < this.n; i++) {
      this.b[i] = ((this.b[i] as number) * share) / factor;
      this.weights[i] = (this.weights[i] as number) * factor;
    }
    this.samples *= share;
  }

  /** Solves for the weights; a negative one is set to zero and the rest solved again. `prior` is what the shrinkage pulls towards. */
  solve(prior: readonly number[], meanWeight: number): void {
    const active = prior.map((_, i) => i);
    for (;;) {
      const solution = this.solveActive(active, prior, meanWeight);
      const worst = solution.reduce((at, w, k) => (w < (at < 0 ? 0 : (solution[at] as number)) ? k : at), -1);
      if (worst < 0 || active.length === 1) {
        this.weights.fill(0);
        active.forEach((i, k) => (this.weights[i] = Math.max(0, solution[k] as number)));
        return;
      }
      active.splice(worst, 1);
    }
  }

  private solveActive(active: readonly number[], prior: readonly number[], meanWeight: number): number[] {
    const m = active.length;
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
const SHRINKAGE = 4;
/** Observations that may be refused in a row before the law itself is taken to have changed (throttling, another tenant). */
const MAX_REFUSED = 12;
/** Share of the old observations that outlives such a change: enough to keep the law's shape, little enough for a new shape to win. */
const KEPT_AFTER_CHANGE = 0.25;
const MAX_REFUSED_PREFILL = 4;
/** A prefill label this many times off the expectation is taken for a step that was read wrongly: loosely at first, tightly once a few agree. */
const PREFILL_OFF_FIRST = 3;
const PREFILL_OFF = 1.35;
const PREFILL_SETTLED = 8;
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
  private refusedPrefill = 0;
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
    this.refusedPrefill = 0;
    this.decode = new ForgettingFit([prior.c0, prior.c3, prior.c4], DECODE_SCALES, DECODE_WINDOW, SHRINKAGE);
    this.prefill = new ForgettingFit([prior.c1, prior.c2], PREFILL_SCALES, PREFILL_WINDOW, SHRINKAGE);
    this.cached = undefined;
  }

  /** A better prior has come with a table. */
  setPrior(prior: LawState): void {
    this.prior = prior;
    if (this.frontEndSamples === 0) this.frontEndMs = prior.frontEndMs;
    this.solve();
  }

  /** A step of `decoding` sequences over `contextTokens` that lasted `ms` and had no prefill in it. */
  addDecodeStep(ms: number, decoding: number, contextTokens: number): void {
    const x = [1, decoding, contextTokens];
    if (!this.accepts(ms, this.decode.predict(x))) return;
    // Relative errors count alike, so a step is weighted by the inverse square of its length.
    this.decode.add(x, ms, 1 / (ms * ms));
    if (this.decode.samples < 64 || Math.round(this.decode.samples) % 8 === 0) this.solve();
  }

  /** A step that besides its decodes computed `tokens` of prefill with `pairs` query-key pairs. */
  addPrefillStep(ms: number, decoding: number, contextTokens: number, tokens: number, pairs: number): void {
    const base = this.decode.predict([1, decoding, contextTokens]);
    const extra = ms - base;
    // While steps are being refused, the decode part that is taken off here may be the wrong one.
    if (extra <= 0 || tokens < 16 || this.refused.length > 0) return;
    const x = [tokens, pairs];
    if (!this.acceptsPrefill(ms, base + this.prefill.predict(x))) return;
    this.prefill.add(x, extra, 1 / (ms * ms));
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
    this.decode.rescale(factor, KEPT_AFTER_CHANGE);
    this.prefill.rescale(factor, KEPT_AFTER_CHANGE);
    this.solve();
  }

  /** A busy host delays the tokens of a step, and a label then belongs to another step: such labels are far off, and few. */
  private acceptsPrefill(ms: number, predicted: number): boolean {
    const limit = this.prefill.samples >= PREFILL_SETTLED ? PREFILL_OFF : PREFILL_OFF_FIRST;
    if (ms <= predicted * limit && ms >= predicted / limit) {
      this.refusedPrefill = 0;
      return true;
    }
    this.refusedPrefill += 1;
    if (this.refusedPrefill < MAX_REFUSED_PREFILL) return false;
    this.refusedPrefill = 0;
    this.prefill.rescale(1, KEPT_AFTER_CHANGE);
    return true;
  }

  private solve(): void {
    const [c0, c1, c2, c3, c4] = [this.prior.c0, this.prior.c1, this.prior.c2, this.prior.c3, this.prior.c4].map((c) => c * this.slowdown) as [number, number, number, number, number];
    this.decode.solve([c0, c3, c4], 1 / Math.max(C0_MIN_MS, c0) ** 2);
    this.prefill.solve([c1, c2], 1 / Math.max(C0_MIN_MS, c0 + c1 * 512) ** 2);
    this.cached = undefined;
  }
}
