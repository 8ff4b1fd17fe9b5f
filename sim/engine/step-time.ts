import type { Rng } from '../../shared/env.ts';
import type { StepBatch } from './step.ts';

/** How long a GPU takes for one scheduler step, in milliseconds. */
export type StepTimeModel = (batch: StepBatch) => number;

/** Coefficients of the step-time law, in milliseconds; `sim/data/calibration/README.md` explains each. */
export interface StepCoefficients {
  c0: number;
  c1: number;
  c2: number;
  c3: number;
  c4: number;
  /** Tokens a step carries for free; with it the second form of the law holds. */
  T0?: number | undefined;
  /** Extra cost per decode context token in a step that also prefills; second form of the law. */
  c5?: number | undefined;
}

/** The calibrated law: linear, or its bent form when `T0` or `c5` is given. */
export function linearStepTime(coefficients: StepCoefficients): StepTimeModel {
  const { c0, c1, c2, c3, c4, T0, c5 } = coefficients;
  if (T0 === undefined && c5 === undefined) {
    return (b) => c0 + c1 * b.prefillTokens + c2 * b.prefillPairs + c3 * b.decodes + c4 * b.decodeContext;
  }
  const free = T0 ?? 0;
  const beside = c5 ?? 0;
  return (b) =>
    c0 +
    c1 * Math.max(0, b.prefillTokens + b.decodes - free) +
    c2 * b.prefillPairs +
    c3 * (b.decodes + b.chunks) +
    (c4 + (b.prefillTokens > 0 ? beside : 0)) * b.decodeContext;
}

/**
 * Multiplies each step by lognormal noise of mean 1; `sigma` is the standard deviation of its logarithm, 0 for none.
 */
export function withNoise(model: StepTimeModel, sigma: number, rng: Rng): StepTimeModel {
  if (sigma === 0) return model;
  return (batch) => {
    const gauss = Math.sqrt(-2 * Math.log(1 - rng())) * Math.cos(2 * Math.PI * rng());
    return model(batch) * Math.exp(sigma * gauss - (sigma * sigma) / 2);
  };
}
