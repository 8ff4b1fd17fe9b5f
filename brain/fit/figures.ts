import { quantile as quantileOfAscending } from '../../shared/quantile.ts';

/** How predictions of TTFT compare with what happened. Ratios. */
export interface Figures {
  /** median and 90th percentile of |predicted − observed| / observed */
  medianApe: number;
  p90Ape: number;
  /** rank correlation; null if one side is constant */
  spearman: number | null;
  /** share of requests that were no slower than their predicted 90th percentile; 0.9 is right */
  p90Coverage: number;
}

/** One request of the test: ms. */
export interface Prediction {
  predictedMs: number;
  predictedP90Ms: number;
  observedMs: number;
}

/** Figures of at least one prediction. */
export function figuresOf(predictions: readonly Prediction[]): Figures {
  const apes = predictions.map(({ predictedMs, observedMs }) => Math.abs(predictedMs - observedMs) / observedMs);
  const covered = predictions.filter(({ predictedP90Ms, observedMs }) => observedMs <= predictedP90Ms).length;
  return {
    medianApe: quantile(apes, 0.5),
    p90Ape: quantile(apes, 0.9),
    spearman: correlation(
      ranks(predictions.map(({ predictedMs }) => predictedMs)),
      ranks(predictions.map(({ observedMs }) => observedMs)),
    ),
    p90Coverage: covered / predictions.length,
  };
}

/** Quantile of values in any order. NaN of nothing. */
export function quantile(values: readonly number[], share: number): number {
  return quantileOfAscending(Float64Array.from(values).toSorted(), share);
}

/** Ranks from 0; equal values share the mean of theirs. */
function ranks(values: readonly number[]): Float64Array {
  const order = values.map((_, i) => i).toSorted((a, b) => (values[a] as number) - (values[b] as number));
  const out = new Float64Array(values.length);
  for (let from = 0; from < order.length;) {
    let to = from;
    while (to + 1 < order.length && values[order[to + 1] as number] === values[order[from] as number]) to += 1;
    for (let i = from; i <= to; i++) out[order[i] as number] = (from + to) / 2;
    from = to + 1;
  }
  return out;
}

function correlation(a: Float64Array, b: Float64Array): number | null {
  const mean = (a.length - 1) / 2;
  let product = 0;
  let squaresA = 0;
  let squaresB = 0;
  for (let i = 0; i < a.length; i++) {
    const x = (a[i] as number) - mean;
    const y = (b[i] as number) - mean;
    product += x * y;
    squaresA += x * x;
    squaresB += y * y;
  }
  return squaresA > 0 && squaresB > 0 ? product / Math.sqrt(squaresA * squaresB) : null;
}
