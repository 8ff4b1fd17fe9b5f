import { billedTokens, type StepLaw } from '../../../shared/predictor/step-law.ts';
import { ForgettingFit } from './forgetting-fit.ts';

/** What a step prefilled, beside how many sequences over how much context. */
export interface PrefillChunk {
  tokens: number;
  pairs: number;
  decoding: number;
  contextTokens: number;
}

/**
 * Free tokens of a step that are tried: GPUs show none to a few hundred (a weight read lasts as long as computing c0/c1
 * tokens).
 */
const FREE_TOKENS = [0, 48, 96, 192, 384] as const;
/** A typical label that the shrinkage is measured in: 512 tokens of prefill beside 16k tokens of context. */
const SCALES = [512, 512 * 2048, 16_000] as const;
const WINDOW = 120;
/** Average labels that the prior counts as: they are rare, and nearly all true. */
const SHRINKAGE = 1;
/** Labels after which an old error counts for 1/e. */
const ERROR_MEMORY = 60;
/** Labels before another number of free tokens may win, and how much better it must predict. */
const CHOOSE_FROM = 10;
const CLEARLY_BETTER = 0.95;

interface Rival {
  t0: number;
  fit: ForgettingFit;
  /** mean squared error of its predictions, relative to the step, before it learned from them */
  error: number;
}

/**
 * Fits what prefill adds to a step: c1·billed + c2·pairs + c5·context. The number of free tokens t0 bends the law, so
 * no regression finds it: a few values are fitted side by side, and the one that has predicted best of late is in
 * force.
 */
export class PrefillFit {
  private rivals: Rival[];
  private chosen: Rival;

  constructor(prior: StepLaw) {
    const values = [...new Set([prior.t0, ...FREE_TOKENS])];
    this.rivals = values.map((t0) => ({
      t0,
      fit: new ForgettingFit([prior.c1, prior.c2, prior.c5], SCALES, WINDOW, SHRINKAGE),
      error: 0,
    }));
    this.chosen = this.rivals[0] as Rival;
  }

  get samples(): number {
    return this.chosen.fit.samples;
  }

  get c1(): number {
    return this.chosen.fit.weights[0] as number;
  }

  get c2(): number {
    return this.chosen.fit.weights[1] as number;
  }

  get c5(): number {
    return this.chosen.fit.weights[2] as number;
  }

  get t0(): number {
    return this.chosen.t0;
  }

  /** Milliseconds that the chunk adds to its step. */
  predict(chunk: PrefillChunk): number {
    return this.chosen.fit.predict(regressors(chunk, this.chosen.t0));
  }

  /** A chunk added `extraMs`; `weight`: inverse square of the step's length. */
  add(chunk: PrefillChunk, extraMs: number, weight: number): void {
    for (const rival of this.rivals) {
      const x = regressors(chunk, rival.t0);
      const squared = (extraMs - rival.fit.predict(x)) ** 2 * weight;
      rival.error += (squared - rival.error) / Math.min(ERROR_MEMORY, rival.fit.samples + 1);
      rival.fit.add(x, extraMs, weight);
    }
    if (this.samples < CHOOSE_FROM) return;
    for (const rival of this.rivals) if (rival.error < CLEARLY_BETTER * this.chosen.error) this.chosen = rival;
  }

  /** Takes every label so far to have lasted `factor` times as long, and keeps `share` of them. */
  rescale(factor: number, share: number): void {
    for (const { fit } of this.rivals) fit.rescale(factor, share);
  }

  /** Solves all rivals anew, shrunk towards the prior, which has become `slowdown` times slower. */
  solve(prior: StepLaw, slowdown: number): void {
    const weights = [prior.c1 * slowdown, prior.c2 * slowdown, prior.c5 * slowdown];
    for (const { fit } of this.rivals) fit.solve(weights);
  }
}

function regressors({ tokens, pairs, decoding, contextTokens }: PrefillChunk, t0: number): number[] {
  return [billedTokens({ t0 }, tokens, 1, decoding), pairs, contextTokens];
}
