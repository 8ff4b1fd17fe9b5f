import type { Experience } from '../replay/experience.ts';

/** Logarithms of p90 / mean of TTFT and TPOT. */
export interface P90Log {
  ttft: number;
  tpot: number;
}

/** Spread assumed before enough was observed. */
const START: P90Log = { ttft: Math.log(1.6), tpot: Math.log(1.3) };
const MIN_OBSERVED = 20;

/**
 * 90th percentile of observed / prior: what a table without a net says of the spread. At least 1, so that a p90 is
 * never below its mean.
 */
export function p90Logs(experiences: readonly Experience[]): P90Log {
  return {
    ttft: quantile(experiences.map(({ ttft }) => ttft)) ?? START.ttft,
    tpot: quantile(experiences.map(({ tpot }) => tpot)) ?? START.tpot,
  };
}

function quantile(values: readonly number[]): number | null {
  const known = values.filter((value) => !Number.isNaN(value)).toSorted((a, b) => a - b);
  if (known.length < MIN_OBSERVED) return null;
  return Math.max(0, known[Math.floor((known.length - 1) * 0.9)] as number);
}
