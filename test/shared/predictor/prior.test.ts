import { describe, expect, test } from 'vitest';
import { addReservation, candidateOf, type CandidateState } from '../../../shared/candidate.ts';
import { seededRng } from '../../../shared/env.ts';
import type { InstanceLimits, LedgerTotals } from '../../../shared/instance.ts';
import { estimatePrior, type PriorEstimate } from '../../../shared/predictor/prior.ts';
import { below } from '../../helpers/random.ts';
import { reportOf, requestOf } from '../../helpers/reports.ts';

const LAW = { c0: 20, c1: 0.1, c2: 1e-5, c3: 0.5, c4: 1e-3, c5: 0, t0: 0, frontEndMs: 8, samples: 10, residualMs: 0 };

function candidateOn(
  ledger: Partial<LedgerTotals>,
  hitTokens = 0,
  limits: Partial<InstanceLimits> = {},
): CandidateState {
  const report = reportOf('a', { law: LAW }, ledger);
  const candidate = candidateOf({ ...report, limits: { ...report.limits, ...limits } });
  candidate.hitTokens = hitTokens;
  return candidate;
}

function prior(candidate: CandidateState, promptTokens: number, outputTokens = 100): PriorEstimate {
  return estimatePrior(requestOf(promptTokens, { outputTokens }), candidate, {
    ttftMs: 0,
    tpotMs: 0,
    workMs: 0,
    baseMs: 0,
    overTokens: 0,
    kvPressure: 0,
  });
}

describe('by hand', () => {
  test('an idle instance: front end, one step, the prefill; no running step to wait for', () => {
    const out = prior(candidateOn({}), 1000);
    // 8 + 20 + 0.1·1000 + 1e-5·1000·500
    expect(out.ttftMs).toBeCloseTo(8 + 20 + 100 + 5, 9);
    expect(out.workMs).toBeCloseTo(105, 9);
    expect(out.baseMs).toBe(20);
    // 20 + 0.5 + 1e-3·1000, nobody else prefills
    expect(out.tpotMs).toBeCloseTo(21.5, 9);
    expect(out.overTokens).toBe(1000 - 40_000);
    expect(out.kvPressure).toBe(0.025);
  });

  test('a cached prefix saves its prefill but is still attended to', () => {
    const out = prior(candidateOn({}, 800), 1000);
    // own 200 over 800 cached: 8 + 20 + 20 + 1e-5·200·900
    expect(out.ttftMs).toBeCloseTo(8 + 20 + 20 + 1.8, 9);
    expect(out.workMs).toBeCloseTo(21.8, 9);
  });

  test('a queue of prefill, beside a decode batch, over a link', () => {
    const candidate = candidateOn({
      inFlight: 6,
      prefilling: 2,
      decoding: 4,
      pendingTokens: 3000,
      pendingPromptTokens: 1500,
      decodeContextTokens: 4000,
      usedTokens: 9000,
      workRatio: 0.5,
    });
    candidate.linkMs = 3;
    const out = prior(candidate, 1000);
    // base 20 + 0.5·4 + 1e-3·4000 = 26; 4000 tokens in ⌈4000/2044⌉ = 2 steps, and half a step of waiting
    expect(out.baseMs).toBeCloseTo(26, 9);
    expect(out.ttftMs).toBeCloseTo(8 + 3 + 2.5 * 26 + 400 + 1e-5 * (1000 * 500 + 3000 * 0.6 * 1500), 9);
    // half of the time goes to prefill
    expect(out.tpotMs).toBeCloseTo((20 + 0.5 * 5 + 1e-3 * 5000) / 0.5, 9);
  });

  test('a cache that is overbooked waits for answers to end', () => {
    const out = prior(candidateOn({ inFlight: 10, decoding: 10, usedTokens: 38_000 }), 5000);
    // demand 43,000 + 120·10 growth − 40,000 = 4,200 over
    expect(out.overTokens).toBe(4200);
    const base = 20 + 0.5 * 10;
    const work = 0.1 * 5000 + 1e-5 * 5000 * 2500;
    // ⌈5000/2038⌉ = 3 steps and a half
    expect(out.ttftMs).toBeCloseTo(8 + 3.5 * base + work + (4200 / 38_000) * 100 * (base + 25.6), 9);
  });

  test('a full batch admits only when a sequence ends', () => {
    const limits = { maxNumSeqs: 4 };
    const free = prior(candidateOn({ inFlight: 3, decoding: 3 }, 0, limits), 100).ttftMs;
    const full = prior(candidateOn({ inFlight: 4, decoding: 4 }, 0, limits), 100).ttftMs;
    expect(full - free).toBeCloseTo(1.5 * 0.5 + (1 / 4) * 100 * 22, 9);
  });
});

describe('monotone', () => {
  const grow: [string, (ledger: Record<string, number>) => Partial<LedgerTotals>][] = [
    ['pending tokens', (l) => ({ ...l, pendingTokens: (l['pendingTokens'] ?? 0) + 500 })],
    ['decoding sequences', (l) => ({ ...l, decoding: (l['decoding'] ?? 0) + 1, inFlight: (l['inFlight'] ?? 0) + 1 })],
    ['decode context', (l) => ({ ...l, decodeContextTokens: (l['decodeContextTokens'] ?? 0) + 900 })],
    ['tokens waiting for room', (l) => ({ ...l, waitingTokens: (l['waitingTokens'] ?? 0) + 3000 })],
    ['work ratio', (l) => ({ ...l, workRatio: (l['workRatio'] ?? 0) + 0.1 })],
  ];

  test.each(grow)('more %s never predicts less', (_what, more) => {
    const rng = seededRng(8);
    for (let round = 0; round < 500; round++) {
      const ledger = {
        inFlight: below(rng, 40),
        prefilling: below(rng, 4),
        decoding: below(rng, 30),
        pendingTokens: below(rng, 9000),
        waitingTokens: below(rng, 5000),
        pendingPromptTokens: below(rng, 4000),
        decodeContextTokens: below(rng, 30_000),
        usedTokens: below(rng, 45_000),
        workRatio: rng(),
      };
      const tokens = 1 + below(rng, 6000);
      const before = prior(candidateOn(ledger), tokens);
      const { ttftMs, tpotMs } = before;
      const after = prior(candidateOn(more(ledger)), tokens);
      expect(after.ttftMs).toBeGreaterThanOrEqual(ttftMs - 1e-9);
      expect(after.tpotMs).toBeGreaterThanOrEqual(tpotMs - 1e-9);
    }
  });

  test('another reservation never predicts less, more cache never more', () => {
    const rng = seededRng(9);
    for (let round = 0; round < 500; round++) {
      const candidate = candidateOn({ usedTokens: below(rng, 42_000), decoding: below(rng, 20), inFlight: 20 });
      const tokens = 100 + below(rng, 6000);
      const before = prior(candidate, tokens).ttftMs;
      addReservation(candidate, 1000, 1 + below(rng, 1000));
      expect(prior(candidate, tokens).ttftMs).toBeGreaterThanOrEqual(before);
      const cold = prior(candidateOn({}), tokens).ttftMs;
      expect(prior(candidateOn({}, Math.floor(tokens / 2)), tokens).ttftMs).toBeLessThanOrEqual(cold);
    }
  });
});
