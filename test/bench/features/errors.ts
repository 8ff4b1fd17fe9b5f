import { quantileOf } from '../figure.ts';

/** One prediction and its outcome: logarithms of the ratio to the prior. */
export interface Pair {
  predicted: number;
  p90: number;
  observed: number;
}

export interface Errors {
  medianApe: number;
  p90Ape: number;
  /** mean of |log(predicted / observed)| */
  logError: number;
  p90Coverage: number;
}

/** Errors over the pairs whose outcome was observed. */
export function errorsOf(pairs: readonly Pair[]): Errors {
  const known = pairs.filter(({ observed }) => !Number.isNaN(observed));
  const apes = known.map(({ predicted, observed }) => Math.abs(Math.expm1(predicted - observed)));
  const mean = (of: (pair: Pair) => number): number => known.reduce((sum, pair) => sum + of(pair), 0) / known.length;
  return {
    medianApe: quantileOf(apes, 0.5),
    p90Ape: quantileOf(apes, 0.9),
    logError: mean(({ predicted, observed }) => Math.abs(predicted - observed)),
    p90Coverage: mean(({ predicted, p90, observed }) => (observed <= Math.max(predicted, p90) ? 1 : 0)),
  };
}

/** The mean of several rows of errors, figure by figure. */
export function meanErrors(rows: readonly Errors[]): Errors {
  const mean = (of: (row: Errors) => number): number => rows.reduce((sum, row) => sum + of(row), 0) / rows.length;
  return {
    medianApe: mean((row) => row.medianApe),
    p90Ape: mean((row) => row.p90Ape),
    logError: mean((row) => row.logError),
    p90Coverage: mean((row) => row.p90Coverage),
  };
}
