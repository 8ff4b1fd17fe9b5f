import { type Cluster, parseCluster } from '../../../sim/fleet/cluster.ts';
import type { ClientOutcome } from '../../../sim/fleet/entry.ts';
import type { RunJob } from '../../../sim/fleet/job.ts';
import { type SimRequest, simRequest } from '../../../sim/fleet/plan.ts';
import type { RunResult } from '../../../sim/fleet/result.ts';
import type { SimPolicy } from '../../../sim/fleet/run.ts';
import type { TraceSpec } from '../../../sim/fleet/scenario.ts';

/** Two instances of different kinds. */
export const pair: Cluster = parseCluster('{"instances": [{"gpu": "A30"}, {"gpu": "A100"}]}', 'pair');

/** Forty short requests that need no file. */
export const shortTrace: TraceSpec = {
  file: 'synthetic:shared-prompts',
  format: undefined,
  lengthScale: 0.25,
  outputScale: 0.1,
  startS: 0,
  durationS: 30,
  maxPromptTokens: undefined,
  maxRequests: 40,
  pace: { rate: 8 },
};

export function job(policy: SimPolicy, changes: Partial<RunJob> = {}): RunJob {
  return {
    kind: 'run',
    cluster: pair,
    trace: shortTrace,
    policy,
    seed: 1,
    entries: 1,
    objective: 'ttft',
    sloTtftMs: undefined,
    sloTpotMs: undefined,
    sendSlo: false,
    warmupS: 2,
    plots: false,
    ...changes,
  };
}

/** A request that arrives at a time, with a prompt of so many tokens. */
export function request(index: number, arrivalMs: number, promptTokens = 100): SimRequest {
  return simRequest(index, arrivalMs, new Int32Array(promptTokens).fill(index), 10, '');
}

/** What became of it; well unless told otherwise. */
export function outcome(one: SimRequest, changes: Partial<ClientOutcome> = {}): ClientOutcome {
  return {
    request: one,
    ok: true,
    ttftMs: 100,
    e2eMs: 1000,
    outputTokens: 10,
    cachedTokens: 0,
    entryHitTokens: 0,
    doorHitTokens: 0,
    instance: 'i0',
    policy: 'lmetric',
    predictedTtftMs: NaN,
    predictedTtftP90Ms: NaN,
    regretMs: NaN,
    ...changes,
  };
}

/** A run of which only latencies matter. */
export function resultOf(
  policy: SimPolicy,
  seed: number,
  ttftMeanMs: number,
  changes: Partial<RunResult> = {},
): RunResult {
  const latency = { mean: ttftMeanMs, p50: ttftMeanMs, p90: ttftMeanMs, p99: 2 * ttftMeanMs };
  const figures = {
    requests: 100,
    completed: 100,
    failed: 0,
    ttftMs: latency,
    tpotMs: latency,
    e2eMs: latency,
    kvHitRatio: 0.5,
    cachePredicted: { entry: 1, door: 1 },
    goodput: 1,
    regretMs: null,
  };
  const predictor = { medianApe: null, p90Coverage: null, firstTrustedAtS: null, firstTrustedRequests: null };
  return { policy, seed, ...figures, predictor, afterWarmup: { ...figures, predictor }, perInstance: [], ...changes };
}
