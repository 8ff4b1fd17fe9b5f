import { quantile } from '../../shared/quantile.ts';
import type { ClientOutcome } from './entry.ts';
import { ape, mean } from './result.ts';
import type { RunRecord } from './run.ts';

const BINS = 40;
const CDF_POINTS = 100;

/** What the plots of one run show; times in s since the first request could come, null where a span saw nothing. */
export interface RunPlots {
  /** middle of each span of arrivals, s */
  atS: number[];
  ttftMeanMs: (number | null)[];
  ttftP99Ms: (number | null)[];
  /** cached / prompt tokens */
  kvHitRatio: (number | null)[];
  /** median absolute percentage error of the predicted TTFT */
  medianApe: (number | null)[];
  /** TTFT and E2E at 101 evenly spaced quantiles, ms */
  ttftCdfMs: number[];
  e2eCdfMs: number[];
}

/** Sums a run up for plotting: 40 spans of arrival time, and distributions. */
export function runPlots({ outcomes }: RunRecord, lastArrivalMs: number): RunPlots {
  const done = outcomes.filter((one) => one.ok);
  const widthMs = Math.max(1, lastArrivalMs) / BINS;
  const bins: ClientOutcome[][] = Array.from({ length: BINS }, () => []);
  for (const one of done) bins[Math.min(BINS - 1, Math.floor(one.request.arrivalMs / widthMs))]?.push(one);
  return {
    atS: bins.map((_, bin) => ((bin + 0.5) * widthMs) / 1000),
    ttftMeanMs: bins.map((bin) => mean(bin.map((one) => one.ttftMs))),
    ttftP99Ms: bins.map((bin) =>
      quantileOf(
        bin.map((one) => one.ttftMs),
        0.99,
      ),
    ),
    kvHitRatio: bins.map((bin) => {
      const prompt = bin.reduce((sum, one) => sum + one.request.prompt.length, 0);
      return prompt === 0 ? null : bin.reduce((sum, one) => sum + one.cachedTokens, 0) / prompt;
    }),
    medianApe: bins.map((bin) => quantileOf(bin.filter((one) => one.policy === 'learned').map(ape), 0.5)),
    ttftCdfMs: cdf(done.map((one) => one.ttftMs)),
    e2eCdfMs: cdf(done.map((one) => one.e2eMs)),
  };
}

function quantileOf(values: readonly number[], q: number): number | null {
  const ascending = Float64Array.from(values.filter(Number.isFinite)).toSorted();
  return ascending.length === 0 ? null : quantile(ascending, q);
}

function cdf(values: readonly number[]): number[] {
  const ascending = Float64Array.from(values).toSorted();
  return ascending.length === 0
    ? []
    : Array.from({ length: CDF_POINTS + 1 }, (_, at) => quantile(ascending, at / CDF_POINTS));
}
