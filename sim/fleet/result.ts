import { quantile } from '../../shared/quantile.ts';
import type { ClientOutcome } from './entry.ts';
import type { RunRecord, SimPolicy } from './run.ts';
import { ENGINE_BLOCK_TOKENS, type SimRequest } from './plan.ts';

/** Service levels that goodput is counted against where none are given. */
export const DEFAULT_SLO = { ttftMs: 1000, tpotMs: 100 } as const;

/** A latency over the completed requests of a run, ms; null where there was none. */
export interface Latency {
  mean: number | null;
  p50: number | null;
  p90: number | null;
  p99: number | null;
}

/** What clients saw, of a whole run or of a part of it. */
export interface Figures {
  requests: number;
  completed: number;
  failed: number;
  ttftMs: Latency;
  /** time per output token after the first, over answers of at least two */
  tpotMs: Latency;
  e2eMs: Latency;
  /** cached prompt tokens / prompt tokens */
  kvHitRatio: number | null;
  /**
   * share of completed requests whose cached tokens were told to within one block: when the entry chose, and when the
   * door sent it on
   */
  cachePredicted: { entry: number | null; door: number | null };
  /** share of all requests that completed within both service levels */
  goodput: number | null;
  /** mean over the decisions that were looked at, ms behind the best instance */
  regretMs: number | null;
  predictor: PredictorFigures;
}

/** How good the predictions were that decisions of `learned` rested on; null without any. */
export interface PredictorFigures {
  /** median of |predicted − seen| / seen, of TTFT */
  medianApe: number | null;
  /** share of TTFTs at or below their predicted 90th percentile */
  p90Coverage: number | null;
}

export interface InstanceFigures {
  id: string;
  gpu: string;
  requests: number;
  /** of all completed requests */
  share: number;
  ttftMeanMs: number | null;
  kvHitRatio: number | null;
  busyRatio: number;
  preemptions: number;
}

/** One run in the shape of the JSON output. */
export interface RunResult extends Figures {
  policy: SimPolicy;
  seed: number;
  predictor: PredictorFigures & { firstTrustedAtS: number | null; firstTrustedRequests: number | null };
  /** of requests that arrived after the warm-up */
  afterWarmup: Figures;
  perInstance: InstanceFigures[];
}

export interface ResultOptions {
  policy: SimPolicy;
  seed: number;
  warmupS: number;
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
}

/** Statistics of one run. A request without an outcome counts as failed. */
export function runResult(record: RunRecord, requests: readonly SimRequest[], options: ResultOptions): RunResult {
  const { policy, seed, warmupS } = options;
  const warm = (request: SimRequest): boolean => request.arrivalMs >= warmupS * 1000;
  const { predictor, ...figures } = figuresOf(record.outcomes, requests.length, options);
  const { firstTrusted } = record;
  return {
    policy,
    seed,
    ...figures,
    afterWarmup: figuresOf(
      record.outcomes.filter(({ request }) => warm(request)),
      requests.filter(warm).length,
      options,
    ),
    perInstance: perInstance(record),
    predictor: {
      ...predictor,
      firstTrustedAtS: firstTrusted ? firstTrusted.atMs / 1000 : null,
      firstTrustedRequests: firstTrusted?.requests ?? null,
    },
  };
}

/** Time per output token after the first, ms; NaN for an answer of one token. */
export function tpotMs({ outputTokens, ttftMs, e2eMs }: ClientOutcome): number {
  return outputTokens > 1 ? (e2eMs - ttftMs) / (outputTokens - 1) : NaN;
}

function figuresOf(outcomes: readonly ClientOutcome[], requests: number, options: ResultOptions): Figures {
  const done = outcomes.filter((one) => one.ok);
  const maxTtftMs = options.sloTtftMs ?? DEFAULT_SLO.ttftMs;
  const maxTpotMs = options.sloTpotMs ?? DEFAULT_SLO.tpotMs;
  const good = done.filter((one) => one.ttftMs <= maxTtftMs && !(tpotMs(one) > maxTpotMs));
  return {
    requests,
    completed: done.length,
    failed: requests - done.length,
    ttftMs: latency(done.map((one) => one.ttftMs)),
    tpotMs: latency(done.map(tpotMs)),
    e2eMs: latency(done.map((one) => one.e2eMs)),
    kvHitRatio: hitRatio(done),
    cachePredicted: {
      entry: withinBlock(done, (one) => one.entryHitTokens),
      door: withinBlock(done, (one) => one.doorHitTokens),
    },
    goodput: requests === 0 ? null : good.length / requests,
    regretMs: mean(done.map((one) => one.regretMs)),
    predictor: predictorFigures(done),
  };
}

function predictorFigures(done: readonly ClientOutcome[]): PredictorFigures {
  const predicted = done.filter((one) => one.policy === 'learned' && Number.isFinite(one.predictedTtftMs));
  if (predicted.length === 0) return { medianApe: null, p90Coverage: null };
  return {
    medianApe: quantile(Float64Array.from(predicted, ape).toSorted(), 0.5),
    p90Coverage: predicted.filter((one) => one.ttftMs <= one.predictedTtftP90Ms).length / predicted.length,
  };
}

/** Absolute percentage error of the predicted TTFT. */
export function ape({ predictedTtftMs, ttftMs }: ClientOutcome): number {
  return Math.abs(predictedTtftMs - ttftMs) / ttftMs;
}

function perInstance({ instances, outcomes }: RunRecord): InstanceFigures[] {
  const done = outcomes.filter((one) => one.ok);
  return instances.map(({ id, gpu, requests, busyRatio, preemptions }) => {
    const own = done.filter((one) => one.instance === id);
    const share = done.length === 0 ? 0 : own.length / done.length;
    return {
      id,
      gpu,
      requests,
      share,
      ttftMeanMs: mean(own.map((one) => one.ttftMs)),
      kvHitRatio: hitRatio(own),
      busyRatio,
      preemptions,
    };
  });
}

function hitRatio(outcomes: readonly ClientOutcome[]): number | null {
  let cached = 0;
  let prompt = 0;
  for (const { cachedTokens, request } of outcomes) {
    cached += cachedTokens;
    prompt += request.prompt.length;
  }
  return prompt === 0 ? null : cached / prompt;
}

function withinBlock(done: readonly ClientOutcome[], predicted: (outcome: ClientOutcome) => number): number | null {
  return mean(done.map((one) => (Math.abs(predicted(one) - one.cachedTokens) <= ENGINE_BLOCK_TOKENS ? 1 : 0)));
}

function latency(values: readonly number[]): Latency {
  const ascending = Float64Array.from(values.filter(Number.isFinite)).toSorted();
  if (ascending.length === 0) return { mean: null, p50: null, p90: null, p99: null };
  return {
    mean: mean([...ascending]),
    p50: quantile(ascending, 0.5),
    p90: quantile(ascending, 0.9),
    p99: quantile(ascending, 0.99),
  };
}

/** Mean of the finite values; null without any. */
export function mean(values: readonly number[]): number | null {
  let sum = 0;
  let count = 0;
  for (const value of values) {
    if (!Number.isFinite(value)) continue;
    sum += value;
    count += 1;
  }
  return count === 0 ? null : sum / count;
}
