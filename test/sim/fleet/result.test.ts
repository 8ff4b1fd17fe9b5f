import { describe, expect, it } from 'vitest';
import { runResult } from '../../../sim/fleet/result.ts';
import type { RunRecord } from '../../../sim/fleet/run.ts';
import { halfWidth95, summarizeRuns } from '../../../sim/fleet/summary.ts';
import { outcome, request, resultOf } from './world.ts';

const OPTIONS = { policy: 'learned', seed: 1, warmupS: 30, sloTtftMs: undefined, sloTpotMs: undefined } as const;

function record(outcomes: RunRecord['outcomes']): RunRecord {
  const instance = { gpu: 'A30', requests: 2, busyRatio: 0.5, preemptions: 1 };
  return {
    outcomes,
    instances: [
      { id: 'i0', ...instance },
      { id: 'i1', ...instance },
    ],
    firstTrusted: { atMs: 5500, requests: 7 },
    spanMs: 60_000,
    events: 1,
  };
}

describe('figures of a run', () => {
  const requests = [request(0, 0), request(1, 10_000), request(2, 40_000, 300), request(3, 50_000)];
  const [first, second, third, fourth] = requests as [
    (typeof requests)[0],
    (typeof requests)[0],
    (typeof requests)[0],
    (typeof requests)[0],
  ];

  it('are those of completed requests, of all and after the warm-up', () => {
    const result = runResult(
      record([
        outcome(first!, { ttftMs: 100, e2eMs: 1000, cachedTokens: 50 }),
        outcome(second!, { ttftMs: 300, e2eMs: 300, outputTokens: 1 }),
        outcome(third!, { ttftMs: 2000, e2eMs: 2900, cachedTokens: 200, instance: 'i1', regretMs: 40 }),
        outcome(fourth!, { ok: false, ttftMs: NaN, e2eMs: NaN, instance: '' }),
      ]),
      requests,
      OPTIONS,
    );
    expect(result).toMatchObject({
      policy: 'learned',
      seed: 1,
      requests: 4,
      completed: 3,
      failed: 1,
      regretMs: 40,
      kvHitRatio: 0.5,
    });
    expect(result.ttftMs).toEqual({ mean: 800, p50: 300, p90: expect.closeTo(1660), p99: expect.closeTo(1966) });
    expect(result.tpotMs.mean).toBe(100);
    expect(result.goodput).toBe(0.5);
    expect(result.afterWarmup).toMatchObject({
      requests: 2,
      completed: 1,
      failed: 1,
      ttftMs: { mean: 2000 },
      goodput: 0,
    });
    expect(result.perInstance).toMatchObject([
      { id: 'i0', share: 2 / 3, ttftMeanMs: 200, kvHitRatio: 0.25 },
      { id: 'i1', share: 1 / 3, kvHitRatio: 200 / 300 },
    ]);
  });

  it('count a request without an outcome as failed, and goodput against the levels given', () => {
    const result = runResult(record([outcome(first!, { ttftMs: 100 }), outcome(second!, { ttftMs: 150 })]), requests, {
      ...OPTIONS,
      sloTtftMs: 120,
    });
    expect(result).toMatchObject({ completed: 2, failed: 2, goodput: 0.25 });
    expect(runResult(record([outcome(first!)]), requests, { ...OPTIONS, sloTpotMs: 99 }).goodput).toBe(0);
  });

  it('judge the predictor by the decisions that rested on it', () => {
    const learned = { policy: 'learned', predictedTtftMs: 80, predictedTtftP90Ms: 120 };
    const result = runResult(
      record([
        outcome(first!, learned),
        outcome(second!, { ...learned, ttftMs: 160 }),
        outcome(third!, { predictedTtftMs: 1 }),
      ]),
      requests,
      OPTIONS,
    );
    expect(result.predictor).toEqual({
      medianApe: expect.closeTo(0.35),
      p90Coverage: 0.5,
      firstTrustedAtS: 5.5,
      firstTrustedRequests: 7,
    });
  });

  it('are null where nothing was seen', () => {
    const result = runResult(record([]), requests, OPTIONS);
    expect(result).toMatchObject({
      completed: 0,
      failed: 4,
      kvHitRatio: null,
      goodput: 0,
      ttftMs: { mean: null, p99: null },
      predictor: { medianApe: null },
    });
  });
});

describe('summary over seeds', () => {
  it('has means, and the interval of the mean TTFT by Student', () => {
    const summary = summarizeRuns([
      resultOf('lmetric', 1, 100),
      resultOf('learned', 1, 90),
      resultOf('lmetric', 2, 110),
      resultOf('lmetric', 3, 120),
    ]);
    expect(Object.keys(summary)).toEqual(['lmetric', 'learned']);
    expect(summary['lmetric']).toMatchObject({
      seeds: 3,
      ttftMs: { mean: 110, p99: 220 },
      kvHitRatio: 0.5,
      regretMs: null,
    });
    // Standard deviation 10, t of two degrees of freedom.
    expect(summary['lmetric']?.ci95).toBeCloseTo((4.303 * 10) / Math.sqrt(3), 6);
    expect(summary['learned']?.ci95).toBeNull();
  });

  it('uses the normal quantile for many seeds', () => {
    expect(halfWidth95(Array.from({ length: 100 }, (_, at) => at % 2))).toBeCloseTo(1.96 * Math.sqrt(0.25 / 99), 6);
  });
});
