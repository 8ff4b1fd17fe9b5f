import type { Objective } from './index.ts';

/** Standard normal quantile of 0.9: how far the p90 lies above the median, in standard deviations. */
const Z90 = 1.2816;
/** Spread assumed where p90 and mean agree: no prediction is exact. */
const SIGMA_MIN = 0.1;
/** What a missed target costs, as a multiple of the target itself. */
const MISS = 2;
/** Among instances that meet the targets equally surely, the fast one. */
const PACE = 0.02;
/** Tokens of an answer whose pace counts. */
const PACE_TOKENS = 200;

/**
 * Share of requests that meet their own targets (headers x-slo-ttft-ms and x-slo-tpot-ms): the target times the probability to miss it, from the predicted mean and
 * p90 taken as a lognormal, plus a share of the latencies themselves, which alone decide where no target is given. A request that will miss anywhere goes where it
 * does least harm.
 */
export const goodput: Objective = {
  name: 'goodput',
  describe: 'share of requests within their SLO headers',
  weights: { queue: 0.5, busy: 1, decode: 0.1, paceTokens: PACE_TOKENS, kv: 1, block: 1.2 },
  costMs: ({ ttftMs, ttftP90Ms, tpotMs, tpotP90Ms }, { sloTtftMs, sloTpotMs, outputTokens }) => {
    const bound = sloTtftMs !== undefined || sloTpotMs !== undefined;
    const missed =
      (sloTtftMs === undefined ? 0 : MISS * sloTtftMs * missProbability(ttftMs, ttftP90Ms, sloTtftMs)) +
      (sloTpotMs === undefined ? 0 : MISS * sloTpotMs * Math.min(outputTokens, PACE_TOKENS) * missProbability(tpotMs, tpotP90Ms, sloTpotMs));
    return missed + (bound ? 0.2 : 1) * ttftMs + PACE * Math.min(PACE_TOKENS, outputTokens) * tpotMs;
  },
};

/** Probability that a lognormal with this mean and 90th percentile exceeds `limit`. */
export function missProbability(mean: number, p90: number, limit: number): number {
  const sigma = Math.max(SIGMA_MIN, Math.log(Math.max(1, p90 / Math.max(1e-9, mean))) / Z90);
  const z = (Math.log(Math.max(1e-9, limit)) - Math.log(Math.max(1e-9, mean))) / sigma;
  // Logistic approximation of the normal tail (error below 0.01): cheap on the request path.
  return 1 / (1 + Math.exp(1.702 * z));
}
