import type { Objective } from './objective.ts';

/** Standard normal quantile of 0.9: how far the p90 lies above the median, in standard deviations. */
const Z90 = 1.2816;
/** Spread assumed where p90 and mean agree: no prediction is exact. */
const SIGMA_MIN = 0.1;
/**
 * What a request that misses costs, in multiples of its TTFT target; a lone target per token counts as that many
 * tokens.
 */
const MISS = 8;
const TOKENS_FOR_TTFT = 20;
/**
 * What a millisecond of the whole answer counts against one of TTFT: targets per token are missed where batches grow,
 * so it counts for more than under `ttft`.
 */
const PACE = 0.3;
/** Tokens of an answer whose pace counts. */
const PACE_TOKENS = 200;

/**
 * Share of requests that meet their own targets (headers x-slo-ttft-ms and x-slo-tpot-ms): the probability that the
 * request misses one of them, from the predicted means and p90s taken as lognormals, priced as some of its targets,
 * plus the latencies themselves, which alone decide where no target is given. A request that will miss anywhere goes
 * where it does least harm.
 */
export const goodput: Objective = {
  name: 'goodput',
  describe: 'share of requests within their SLO headers',
  weights: { queue: 0.25, busy: 1, decode: PACE, paceTokens: PACE_TOKENS, kv: 2, block: 1.2 },
  costMs: ({ ttftMs, ttftP90Ms, tpotMs, tpotP90Ms }, { sloTtftMs, sloTpotMs, outputTokens }) => {
    const metTtft = sloTtftMs === undefined ? 1 : 1 - missProbability(ttftMs, ttftP90Ms, sloTtftMs);
    const metTpot = sloTpotMs === undefined ? 1 : 1 - missProbability(tpotMs, tpotP90Ms, sloTpotMs);
    const targetMs = sloTtftMs ?? TOKENS_FOR_TTFT * (sloTpotMs ?? 0);
    return MISS * targetMs * (1 - metTtft * metTpot) + ttftMs + PACE * Math.min(PACE_TOKENS, outputTokens) * tpotMs;
  },
};

/** Probability that a lognormal with this mean and 90th percentile exceeds `limit`. */
export function missProbability(mean: number, p90: number, limit: number): number {
  const sigma = Math.max(SIGMA_MIN, Math.log(Math.max(1, p90 / Math.max(1e-9, mean))) / Z90);
  const z = (Math.log(Math.max(1e-9, limit)) - Math.log(Math.max(1e-9, mean))) / sigma;
  // Logistic approximation of the normal tail (error below 0.01): cheap on the request path.
  return 1 / (1 + Math.exp(1.702 * z));
}
