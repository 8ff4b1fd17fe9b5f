import { difference, type FleetCounters } from '../../../cli/demo/counters.ts';
import type { BrainView } from '../../../cli/demo/fleet-client.ts';
import type { PhaseResult } from '../../../cli/demo/phases.ts';
import { newPhase, type DemoState } from '../../../cli/demo/state.ts';
import { summarize } from '../../../sim/workloads/index.ts';

export const INSTANCES = [
  { id: 'a30-1', gpu: 'A30' },
  { id: 'a100', gpu: 'A100' },
];

/** Counters of two instances that took `a30` and `a100` requests, each with a TTFT of 200 and 100 ms. */
export function counters(a30: number, a100: number): FleetCounters {
  const one = (attempts: number, ttftMs: number) => ({
    attempts,
    firstTokens: attempts,
    ttftSumMs: attempts * ttftMs,
    lookedUpTokens: attempts * 100,
    hitTokens: attempts * 25,
  });
  return {
    instances: { 'a30-1': one(a30, 200), a100: one(a100, 100) },
    policies: { learned: a30 + a100 },
    reasons: { 'learned, trusted': a30 + a100 - 1, 'learned, explore': 1 },
    retries: 0,
  };
}

/** What the brain says in the middle of phase 2. */
export const brain: BrainView = {
  trust: {
    verdict: 'trusted',
    reason: 'median error 12 %',
    samples: 256,
    medianApe: 0.12,
    p90Coverage: 0.9,
    regimes: { idle: 'trusted', queued: 'unknown', full: 'unknown' },
  },
  table: { version: 9 },
  backend: { name: 'wasm', gpu: false },
  policy: { policy: 'learned', inForce: 'learned', why: 'learned was chosen' },
  learner: { rounds: 7, accepted: 3, champion: 'net', samples: { received: 500 } },
  instances: [{ instance: 'a100', kind: 'k', health: 'up', inFlight: 3, waiting: 0, gpuUtilRatio: 0.71 }],
};

/** Phase 1 over, phase 2 half way. */
export function midway(): DemoState {
  const first = newPhase('prefix-load', 40);
  first.progress = { planned: 40, sent: 40, inFlight: 0, succeeded: 40, failed: 0, elapsedMs: 20_000 };
  first.ttftsMs = [100, 200, 900];
  first.counters = counters(30, 10);
  const second = newPhase('learned', 40);
  second.progress = { planned: 40, sent: 24, inFlight: 4, succeeded: 19, failed: 1, elapsedMs: 10_000 };
  second.ttftsMs = [50, 60, 70];
  second.promptTokens = 1000;
  second.cachedTokens = 250;
  second.counters = difference(counters(35, 25), counters(30, 10));
  return {
    elapsedMs: 83_000,
    step: 'learned routes',
    ready: 9,
    processes: 9,
    phases: [first, second],
    current: 1,
    instances: INSTANCES,
    brain,
    trustedAfterMs: 12_300,
  };
}

/** A finished phase of 100 requests with this mean TTFT; its other latencies are multiples. */
export function phaseResult(policy: PhaseResult['policy'], ttftMs: number, a30: number): PhaseResult {
  const summary = (mean: number) => summarize([0.5 * mean, mean, 1.5 * mean]);
  return {
    policy,
    load: {
      sent: 100,
      succeeded: 100,
      failed: 0,
      failures: {},
      examples: {},
      aborted: 0,
      durationMs: 10_000,
      offeredRate: 10,
      achievedRate: 10,
      outputTokensPerSecond: 500,
      ttftMs: summary(ttftMs),
      tpotMs: summary(20),
      e2eMs: summary(2000),
      lateMs: summary(1),
      kvHitRatio: 0.2,
      promptTokens: 1000,
      completionTokens: 100,
    },
    counters: counters(a30, 100 - a30),
    usage: { cores: 2, hostBusyCores: 1, processes: {} },
    meanInFlight: {},
    brain: {
      ...brain,
      instances: INSTANCES.map(({ id }) => ({
        instance: id,
        kind: 'k',
        health: 'up',
        inFlight: 0,
        waiting: 0,
        gpuUtilRatio: null,
      })),
    },
  };
}
