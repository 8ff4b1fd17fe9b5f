import { type Latency, mean, type RunResult } from './result.ts';

/** A figure over the seeds of one policy. */
export type PolicySummary = {
  seeds: number;
  requests: number;
  completed: number;
  failed: number;
  ttftMs: Latency;
  tpotMs: Latency;
  e2eMs: Latency;
  kvHitRatio: number | null;
  goodput: number | null;
  regretMs: number | null;
  medianApe: number | null;
  p90Coverage: number | null;
  firstTrustedAtS: number | null;
  firstTrustedRequests: number | null;
  /** half-width of the 95 % interval of the mean TTFT over seeds, ms; null with one seed */
  ci95: number | null;
  /** the same of other figures */
  ci95Of: { ttftP99Ms: number | null; e2eMeanMs: number | null };
};

/** Two-sided 95 % quantiles of Student's t for 1…30 degrees of freedom. */
const STUDENT_T = [
  12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131, 2.12, 2.11,
  2.101, 2.093, 2.086, 2.08, 2.074, 2.069, 2.064, 2.06, 2.056, 2.052, 2.048, 2.045, 2.042,
] as const;
const NORMAL_95 = 1.96;

/** Each policy's figures as means over its seeds, in the order in which the policies first appear. */
export function summarizeRuns(runs: readonly RunResult[]): Record<string, PolicySummary> {
  const names = [...new Set(runs.map((run) => run.policy))];
  return Object.fromEntries(
    names.map((policy) => [policy, summarizePolicy(runs.filter((run) => run.policy === policy))]),
  );
}

/** Half-width of the 95 % interval of the mean by Student's t; null below two values. */
export function halfWidth95(values: readonly (number | null)[]): number | null {
  const known = values.filter((value) => value !== null);
  const n = known.length;
  if (n < 2) return null;
  const centre = known.reduce((sum, value) => sum + value, 0) / n;
  const variance = known.reduce((sum, value) => sum + (value - centre) ** 2, 0) / (n - 1);
  return (STUDENT_T[n - 2] ?? NORMAL_95) * Math.sqrt(variance / n);
}

function summarizePolicy(runs: readonly RunResult[]): PolicySummary {
  const over = (figure: (run: RunResult) => number | null): number | null =>
    mean(runs.map((run) => figure(run) ?? NaN));
  const latency = (name: 'ttftMs' | 'tpotMs' | 'e2eMs'): Latency => ({
    mean: over((run) => run[name].mean),
    p50: over((run) => run[name].p50),
    p90: over((run) => run[name].p90),
    p99: over((run) => run[name].p99),
  });
  return {
    seeds: runs.length,
    requests: over((run) => run.requests) ?? 0,
    completed: over((run) => run.completed) ?? 0,
    failed: over((run) => run.failed) ?? 0,
    ttftMs: latency('ttftMs'),
    tpotMs: latency('tpotMs'),
    e2eMs: latency('e2eMs'),
    kvHitRatio: over((run) => run.kvHitRatio),
    goodput: over((run) => run.goodput),
    regretMs: over((run) => run.regretMs),
    medianApe: over((run) => run.predictor.medianApe),
    p90Coverage: over((run) => run.predictor.p90Coverage),
    firstTrustedAtS: over((run) => run.predictor.firstTrustedAtS),
    firstTrustedRequests: over((run) => run.predictor.firstTrustedRequests),
    ci95: halfWidth95(runs.map((run) => run.ttftMs.mean)),
    ci95Of: {
      ttftP99Ms: halfWidth95(runs.map((run) => run.ttftMs.p99)),
      e2eMeanMs: halfWidth95(runs.map((run) => run.e2eMs.mean)),
    },
  };
}
