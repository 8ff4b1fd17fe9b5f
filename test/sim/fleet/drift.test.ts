import { describe, expect, test } from 'vitest';
import { defaultConfig } from '../../../shared/config/index.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import type { ClusterEvent } from '../../../sim/fleet/cluster.ts';
import type { ClientOutcome } from '../../../sim/fleet/entry.ts';
import type { SimPolicy } from '../../../sim/fleet/run.ts';
import type { Tamper } from '../../../sim/fleet/tamper.ts';
import { type DriftFleet, mean, requestsOf, runDrift, shareBetween, ttftsBetween } from '../../helpers/drift.ts';
import { absurdReports, lyingEntry, permutedLabels, poisonedSamples } from '../../helpers/falsify.ts';

/** Times are virtual and runs repeat exactly by seed: the margins are for changes of the code. */
const EVENT_S = 25;
const END_S = 60;
const FLEET: DriftFleet = { gpus: ['A30', 'L20', 'A100'], kind: 'shared-prompts', rate: 6, seconds: END_S, entries: 2 };
const learn = defaultConfig('token-of-a-simulation').brain.learn;
/** Laws and ledger alone: what must hold before any net. */
const NO_NET = { learn: { ...learn, minNewSamples: Number.MAX_SAFE_INTEGER } };
/** Nets as small as they come: what is tested is whether they are believed. */
const SMALL_NET = { learn: { ...learn, hidden: [8], roundMs: 8000 } };

interface Case {
  policy?: SimPolicy;
  gpus?: readonly string[];
  events?: readonly ClusterEvent[];
  tamper?: () => Tamper;
  brain?: typeof NO_NET;
  seeds?: readonly number[];
  seconds?: number;
}

/** Outcomes of the fleet's requests, all seeds together. */
async function outcomesOf({
  policy = 'learned',
  gpus = FLEET.gpus,
  events = [],
  tamper,
  brain = NO_NET,
  seeds = [1, 2],
  seconds = END_S,
}: Case): Promise<ClientOutcome[]> {
  const all: ClientOutcome[] = [];
  for (const seed of seeds) {
    const tampered = tamper ? { tamper: tamper() } : {};
    all.push(
      ...(
        await runDrift({ ...FLEET, gpus }, requestsOf({ ...FLEET, seconds }, seed), {
          policy,
          seed,
          events,
          brain,
          ...tampered,
        })
      ).outcomes,
    );
  }
  return all;
}

function ttft(outcomes: readonly ClientOutcome[], fromS: number, toS: number): number {
  return mean(ttftsBetween(outcomes, fromS, toS));
}

/** Median of predicted over observed TTFT on one instance. */
function predictedOverSeen(outcomes: readonly ClientOutcome[], instance: string, fromS: number, toS: number): number {
  const those = outcomes.filter(
    (one) =>
      one.ok &&
      one.instance === instance &&
      one.request.arrivalMs >= fromS * 1000 &&
      one.request.arrivalMs < toS * 1000,
  );
  const ratios = those.map(({ predictedTtftMs, ttftMs }) => predictedTtftMs / ttftMs).toSorted((a, b) => a - b);
  return ratios[Math.floor(ratios.length / 2)] ?? NaN;
}

describe('drift', () => {
  test('an instance three times slower: predictions are right again in 5 s, and TTFT comes back', async () => {
    const back: ClusterEvent = { atS: 80, kind: 'throttle', instance: 2, factor: 1 };
    const from = (atS: number): ClusterEvent[] => [{ atS, kind: 'throttle', instance: 2, factor: 3 }, back];
    const long = { seconds: 95, seeds: [1, 2, 3, 4] };
    const drifted = await outcomesOf({ ...long, events: from(20) });
    const knew = await outcomesOf({ ...long, events: from(0) });
    const lmetric = await outcomesOf({ ...long, policy: 'lmetric', events: from(20) });
    expect(Math.abs(predictedOverSeen(drifted, 'i2', 25, 80) - 1)).toBeLessThan(0.15);
    expect(Math.abs(predictedOverSeen(drifted, 'i2', 85, 95) - 1)).toBeLessThan(0.15);
    // A guard against getting worse: four seeds do not resolve 5 %; the figures are in docs/decisions/0007-trust.md.
    expect(ttft(drifted, 50, 80)).toBeLessThan(1.25 * ttft(knew, 50, 80));
    expect(ttft(drifted, 85, 95)).toBeLessThan(1.05 * ttft(knew, 85, 95));
    expect(ttft(drifted, 20, 80)).toBeLessThan(1.15 * ttft(lmetric, 20, 80));
  });

  test('an engine swapped for a slower one: the new law is known within 10 s', async () => {
    const events: ClusterEvent[] = [{ atS: EVENT_S, kind: 'swap', instance: 2, gpu: findGpu(loadGpus(), 'V100') }];
    const drifted = await outcomesOf({ events });
    const lmetric = await outcomesOf({ policy: 'lmetric', events });
    expect(Math.abs(predictedOverSeen(drifted, 'i2', EVENT_S + 10, END_S) - 1)).toBeLessThan(0.15);
    expect(ttft(drifted, EVENT_S, END_S)).toBeLessThan(1.05 * ttft(lmetric, EVENT_S, END_S));
  });
});

describe('hostile data', () => {
  test('outcomes that nobody can have measured change nothing', async () => {
    const clean = await outcomesOf({ brain: SMALL_NET, seeds: [1] });
    const poisoned = await outcomesOf({ brain: SMALL_NET, seeds: [1], tamper: () => poisonedSamples('entry-0', 0) });
    expect(
      poisoned.every(({ ok, predictedTtftMs }) => ok && Number.isFinite(predictedTtftMs) && predictedTtftMs > 0),
    ).toBe(true);
    expect(shareBetween(poisoned, 0, END_S, ({ policy }) => policy === 'learned')).toBe(1);
    expect(ttft(poisoned, 10, END_S)).toBeLessThan(1.1 * ttft(clean, 10, END_S));
  });

  test('a door that reports absurd laws is served by what is possible', async () => {
    const clean = await outcomesOf({ seeds: [1] });
    const absurd = await outcomesOf({ seeds: [1], tamper: () => absurdReports('i0', EVENT_S * 1000) });
    expect(absurd.every(({ ok, predictedTtftMs }) => ok && Number.isFinite(predictedTtftMs))).toBe(true);
    expect(ttft(absurd, EVENT_S, END_S)).toBeLessThan(2 * ttft(clean, EVENT_S, END_S));
  });

  test.each([
    ['ten times too high', () => lyingEntry('entry-0', 10, 0)],
    ['ten times too low', () => lyingEntry('entry-0', 0.1, 0)],
    ['permuted', () => permutedLabels('entry-0', 0)],
  ])('outcomes of half the entries %s: no worse than the heuristic', async (_name, tamper) => {
    const lied = await outcomesOf({ brain: SMALL_NET, seeds: [1], tamper });
    const lmetric = await outcomesOf({ policy: 'lmetric', seeds: [1] });
    expect(ttft(lied, 10, END_S)).toBeLessThan(1.05 * ttft(lmetric, 10, END_S));
  });
});
