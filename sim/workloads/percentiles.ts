import { quantile } from '../../shared/quantile.ts';

/** Distribution of a latency or a ratio; `count` 0 leaves the others undefined. */
export interface Summary {
  count: number;
  mean?: number;
  p50?: number;
  p90?: number;
  p99?: number;
  max?: number;
}

/** Mean and percentiles of the values, in any order. */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) return { count: 0 };
  const ascending = Float64Array.from(values).toSorted();
  const mean = ascending.reduce((sum, value) => sum + value, 0) / ascending.length;
  return {
    count: ascending.length,
    mean,
    p50: quantile(ascending, 0.5),
    p90: quantile(ascending, 0.9),
    p99: quantile(ascending, 0.99),
    max: quantile(ascending, 1),
  };
}
