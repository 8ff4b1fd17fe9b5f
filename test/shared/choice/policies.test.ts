import { describe, expect, test } from 'vitest';
import type { CandidateState } from '../../../shared/candidate.ts';
import { policies } from '../../../shared/choice/policies/index.ts';
import type { ChoiceInput, PolicyEnv, PolicyKind } from '../../../shared/choice/policies/policy.ts';
import { seededRng } from '../../../shared/env.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';
import { candidateWith, requestOf } from '../../helpers/reports.ts';

function envOf(seed = 1): PolicyEnv {
  return { clock: new VirtualClock(), rng: seededRng(seed) };
}

function inputOf(candidates: CandidateState[], seed = 1, promptTokens = 1000): ChoiceInput {
  return {
    request: requestOf(promptTokens),
    candidates,
    costs: Float64Array.from(candidates, (candidate) => 100 + candidate.inFlight * 50 - candidate.hitTokens / 100),
    temperatureMs: 0.5,
    scores: new Float64Array(candidates.length),
    nowMs: 1000,
    rng: seededRng(seed),
  };
}

describe.each(Object.entries<PolicyKind>(policies))('every policy: %s', (name, kind) => {
  test('its registry name is its own', () => {
    expect(kind.name).toBe(name);
    expect(kind.describe).not.toBe('');
  });

  test('chooses among 1 to 40 candidates, with a propensity in (0, 1] and finite scores', () => {
    const policy = kind.create(envOf());
    for (let n = 1; n <= 40; n++) {
      const input = inputOf(
        Array.from({ length: n }, (_, i) => candidateWith(`i${i}`, { inFlight: (i * 7) % 5 })),
        n,
      );
      const { index, propensity } = policy.choose(input);
      expect(index).toBeGreaterThanOrEqual(0);
      expect(index).toBeLessThan(n);
      expect(propensity).toBeGreaterThan(0);
      expect(propensity).toBeLessThanOrEqual(1);
      expect([...input.scores].every(Number.isFinite)).toBe(true);
    }
  });

  test('the same seed makes the same choices', () => {
    const run = (): number[] => {
      const policy = kind.create(envOf());
      const rng = seededRng(7);
      return Array.from(
        { length: 50 },
        (_, k) =>
          policy.choose({
            ...inputOf(['a', 'b', 'c'].map((id, i) => candidateWith(id, { inFlight: (i + k) % 3 }))),
            rng,
          }).index,
      );
    };
    expect(run()).toEqual(run());
  });

  test('does not send everything of an idle fleet to one instance', () => {
    const policy = kind.create(envOf());
    const rng = seededRng(3);
    const chosen = new Set<number>();
    for (let i = 0; i < 100; i++)
      chosen.add(policy.choose({ ...inputOf(['a', 'b', 'c', 'd'].map((id) => candidateWith(id))), rng }).index);
    expect(chosen.size).toBe(4);
  });

  test('leaves its candidates as they are', () => {
    const candidates = [candidateWith('a', { inFlight: 3 }), candidateWith('b')];
    const before = structuredClone(candidates);
    kind.create(envOf()).choose(inputOf(candidates));
    expect(candidates).toEqual(before);
  });
});

function chosenBy(name: keyof typeof policies, candidates: CandidateState[]): number {
  return policies[name].create(envOf()).choose(inputOf(candidates)).index;
}

test('least-request takes the fewest in flight', () => {
  expect(
    chosenBy('least-request', [
      candidateWith('a', { inFlight: 3 }),
      candidateWith('b', { inFlight: 1 }),
      candidateWith('c', { inFlight: 2 }),
    ]),
  ).toBe(1);
});

test('prefix-load follows the cache while the load is balanced', () => {
  expect(
    chosenBy('prefix-load', [
      candidateWith('a', { inFlight: 1 }, 0),
      candidateWith('b', { inFlight: 2 }, 800),
      candidateWith('c', { inFlight: 2 }, 100),
    ]),
  ).toBe(1);
});

test('prefix-load leaves the cache when the spread of load exceeds 8', () => {
  expect(
    chosenBy('prefix-load', [candidateWith('a', { inFlight: 0 }, 0), candidateWith('b', { inFlight: 9 }, 900)]),
  ).toBe(0);
});

test('prefix-load skips instances above mean + 1 σ', () => {
  // Loads 0, 0, 6: mean 2, σ 2.83, bound 4.83.
  expect(
    chosenBy('prefix-load', [
      candidateWith('a', { inFlight: 0 }, 0),
      candidateWith('b', { inFlight: 0 }, 200),
      candidateWith('c', { inFlight: 6 }, 900),
    ]),
  ).toBe(1);
});

test('lmetric multiplies uncached tokens by batch size plus one', () => {
  // a: (0 + 1000)·5 = 5000; b: (500 + 200)·6 = 4200; c: (3000 + 1000)·1 = 4000.
  const candidates = [
    candidateWith('a', { inFlight: 4 }, 0),
    candidateWith('b', { inFlight: 5, pendingTokens: 500 }, 800),
    candidateWith('c', { pendingTokens: 3000 }),
  ];
  expect(chosenBy('lmetric', candidates)).toBe(2);
});

test('round-robin visits each candidate in turn', () => {
  const policy = policies['round-robin'].create(envOf());
  const candidates = ['a', 'b', 'c'].map((id) => candidateWith(id));
  const first = Array.from({ length: 6 }, () => policy.choose(inputOf(candidates)).index);
  expect(new Set(first.slice(0, 3)).size).toBe(3);
  expect(first.slice(3)).toEqual(first.slice(0, 3));
});

test('learned takes the lowest cost, and near-ties at random in proportion', () => {
  const policy = policies.learned.create(envOf());
  const rng = seededRng(5);
  const counts = [0, 0, 0];
  for (let i = 0; i < 2000; i++) {
    const input = {
      ...inputOf(['a', 'b', 'c'].map((id) => candidateWith(id))),
      rng,
      costs: Float64Array.of(100, 100.5, 200),
    };
    counts[policy.choose(input).index]! += 1;
  }
  expect(counts[2]).toBe(0);
  // exp(−0.5/0.5) = 0.37 of the best's weight.
  expect(counts[1]! / counts[0]!).toBeGreaterThan(0.3);
  expect(counts[1]! / counts[0]!).toBeLessThan(0.45);
});
