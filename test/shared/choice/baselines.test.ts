import { describe, expect, test } from 'vitest';
import type { CandidateState } from '../../../shared/candidate.ts';
import { policies } from '../../../shared/choice/policies/index.ts';
import type { PolicyOutcome } from '../../../shared/choice/policies/policy.ts';
import { candidateWith } from '../../helpers/reports.ts';
import { choiceInput, chosen, counts, policyEnv } from './inputs.ts';

function outcome(instance: string, changes: Partial<PolicyOutcome> = {}): PolicyOutcome {
  return { instance, atMs: 0, ok: true, ttftMs: 100, tpotMs: 20, outputTokens: 100, ...changes };
}

/** A candidate whose engine prefills `times` slower. */
function slower(candidate: CandidateState, times: number): CandidateState {
  const { law } = candidate.report;
  law.c0 *= times;
  law.c1 *= times;
  law.c2 *= times;
  return candidate;
}

describe('llm-d', () => {
  test('weighs prefix 3 against queue 2 and KV 2', () => {
    // a: queue 0, kv 1, prefix 0.8 -> 2 + 2.4 = 4.4; b: queue 1, kv 1, prefix 0 -> 4.
    expect(chosen('llm-d', [candidateWith('a', { waiting: 3 }, 800), candidateWith('b')])).toBe(0);
    // a with prefix 0.6: 2 + 1.8 = 3.8 < 4.
    expect(chosen('llm-d', [candidateWith('a', { waiting: 3 }, 600), candidateWith('b')])).toBe(1);
  });

  test('prefers free KV where nothing else differs', () => {
    expect(
      chosen('llm-d', [candidateWith('a', { usedTokens: 20_000 }), candidateWith('b', { usedTokens: 10_000 })]),
    ).toBe(1);
  });
});

describe('power-of-two', () => {
  test('never takes the most loaded of three, and takes each other as often as it says', () => {
    const input = choiceInput([
      candidateWith('a', { inFlight: 9 }),
      candidateWith('b', { inFlight: 1 }),
      candidateWith('c', { inFlight: 5 }),
    ]);
    const policy = policies['power-of-two'].create(policyEnv());
    const [a, b = 0, c = 0] = counts(policy, input, 3000);
    expect(a).toBe(0);
    expect(b / 3000).toBeCloseTo(2 / 3, 1);
    expect(c / 3000).toBeCloseTo(1 / 3, 1);
    const propensities = new Map(
      Array.from({ length: 50 }, () => policy.choose(input)).map(({ index, propensity }) => [index, propensity]),
    );
    expect(propensities.get(1)).toBeCloseTo(2 / 3);
    expect(propensities.get(2)).toBeCloseTo(1 / 3);
  });
});

describe('cache-aware', () => {
  test('follows a match above 0.3, however loaded its owner within balance', () => {
    expect(chosen('cache-aware', [candidateWith('a', { inFlight: 40 }, 400), candidateWith('b')])).toBe(0);
  });

  test('ignores a match of 0.3 or less', () => {
    expect(chosen('cache-aware', [candidateWith('a', { inFlight: 1 }, 300), candidateWith('b')])).toBe(1);
  });

  test('ignores the cache once loads differ by more than 64 and 1.5 times', () => {
    expect(chosen('cache-aware', [candidateWith('a', { inFlight: 65 }, 900), candidateWith('b')])).toBe(1);
    expect(
      chosen('cache-aware', [candidateWith('a', { inFlight: 265 }, 900), candidateWith('b', { inFlight: 200 })]),
    ).toBe(0);
  });
});

test('dynamo adds prefill blocks left to compute and KV blocks in use', () => {
  // In tokens: a 0 + 1000 − 800 + 2000 = 2200, b 500 + 1000 + 500 = 2000, c 1000 + 1100 = 2100.
  const candidates = [
    candidateWith('a', { usedTokens: 2000 }, 800),
    candidateWith('b', { pendingTokens: 500, usedTokens: 500 }),
    candidateWith('c', { usedTokens: 1100 }),
  ];
  expect(chosen('dynamo', candidates)).toBe(1);
});

test('mooncake weighs the queue against the cache, by each instance’s own speed', () => {
  expect(chosen('mooncake', [candidateWith('a', { pendingTokens: 500 }, 800), candidateWith('b')])).toBe(0);
  expect(chosen('mooncake', [candidateWith('a', { pendingTokens: 1500 }, 800), candidateWith('b')])).toBe(1);
  expect(chosen('mooncake', [candidateWith('a', { pendingTokens: 1500 }, 800), slower(candidateWith('b'), 4)])).toBe(0);
});

describe('token-aware', () => {
  test('stays with its prefix until that costs 18 s more', () => {
    // The generic law's chunk of 2048 takes 18 + 205 + 21 ms: 8.4 tokens/ms, so 18 s are about 151,000 tokens.
    expect(chosen('token-aware', [candidateWith('a', { pendingTokens: 140_000 }, 800), candidateWith('b')])).toBe(0);
    expect(chosen('token-aware', [candidateWith('a', { pendingTokens: 160_000 }, 800), candidateWith('b')])).toBe(1);
  });

  test('measures saturation by the instance’s own throughput', () => {
    expect(
      chosen('token-aware', [slower(candidateWith('a', { pendingTokens: 80_000 }, 800), 2), candidateWith('b')]),
    ).toBe(1);
  });

  test('takes the fewest tokens in flight where nobody holds 0.8 of the prompt', () => {
    expect(
      chosen('token-aware', [
        candidateWith('a', { pendingTokens: 900 }, 700),
        candidateWith('b', { pendingTokens: 100 }, 0),
      ]),
    ).toBe(1);
  });
});

describe('least-load', () => {
  test('prices a KV cache that is nearly full', () => {
    // a: 0.15·0.95/0.05 = 2.85 s; b: 4000/2000 = 2 s.
    expect(
      chosen('least-load', [candidateWith('a', { usedTokens: 38_000 }), candidateWith('b', { pendingTokens: 4000 })]),
    ).toBe(1);
  });

  test('learns the throughput of each instance from its answers', () => {
    const policy = policies['least-load'].create(policyEnv());
    const input = choiceInput([
      candidateWith('a', { pendingTokens: 1000 }),
      candidateWith('b', { pendingTokens: 1000 }),
    ]);
    // One sequence in a batch of 20 ms steps is 50 tok/s, of 10 ms 100.
    policy.observe?.(outcome('a', { tpotMs: 20 }), 1);
    policy.observe?.(outcome('b', { tpotMs: 10 }), 1);
    expect(policy.choose(input).index).toBe(1);
    expect([...input.scores]).toEqual([20, 10]);
  });
});

describe('smetric', () => {
  const idle = { pendingTokens: 0 };

  test('follows a match that meets the bound, else the least work × requests', () => {
    // 1000 tokens may take 600 ms.
    expect(
      chosen('smetric', [candidateWith('a', { inFlight: 5, pendingTokens: 2000 }, 500), candidateWith('b', idle)]),
    ).toBe(0);
    expect(
      chosen('smetric', [candidateWith('a', { inFlight: 5, pendingTokens: 20_000 }, 500), candidateWith('b', idle)]),
    ).toBe(1);
  });

  test('follows the match if nobody meets the bound', () => {
    expect(
      chosen('smetric', [
        candidateWith('a', { inFlight: 5, pendingTokens: 20_000 }, 500),
        candidateWith('b', { pendingTokens: 10_000 }),
      ]),
    ).toBe(0);
  });

  test('learns the rate of an instance after 8 answers', () => {
    const policy = policies.smetric.create(policyEnv());
    const input = choiceInput([
      candidateWith('a', { inFlight: 5, pendingTokens: 2000 }, 500),
      candidateWith('b', idle),
    ]);
    for (let i = 0; i < 8; i++) {
      const { memo } = policy.choose(input);
      policy.observe?.(outcome('a', { ttftMs: 5000 }), memo);
    }
    expect(policy.choose(input).index).toBe(1);
  });
});

describe('preble', () => {
  test('exploits a match of over half the prompt', () => {
    const policy = policies.preble.create(policyEnv());
    expect(counts(policy, choiceInput([candidateWith('a', {}, 600), candidateWith('b')]), 4)).toEqual([4, 0]);
  });

  test('gives requests away once the holder of the match is 1.5 times as loaded as the idlest', () => {
    const policy = policies.preble.create(policyEnv());
    const [a = 0, b = 0] = counts(policy, choiceInput([candidateWith('a', {}, 600), candidateWith('b')]), 200);
    expect(b).toBeGreaterThan(40);
    expect(a).toBeGreaterThan(b);
  });

  test('below half it takes the least load of the last three minutes', () => {
    const policy = policies.preble.create(policyEnv());
    const both = [candidateWith('a', {}, 0), candidateWith('b', {}, 0)];
    const first = policy.choose(choiceInput(both)).index;
    expect(policy.choose(choiceInput(both)).index).toBe(1 - first);
    // The window forgets: afterwards both are level, and draws decide.
    const later = new Set(
      Array.from(
        { length: 20 },
        (_, i) =>
          policies.preble.create(policyEnv(i)).choose(choiceInput(both, { nowMs: 200_000, rng: () => i / 20 })).index,
      ),
    );
    expect(later.size).toBe(2);
  });
});

describe('prequal', () => {
  test('takes the lowest latency among those that are not hot', () => {
    const policy = policies.prequal.create(policyEnv());
    const candidates = [
      candidateWith('a', { inFlight: 2 }),
      candidateWith('b', { inFlight: 3 }),
      candidateWith('c', { inFlight: 30 }),
    ];
    policy.observe?.(outcome('a', { ttftMs: 900 }), 2);
    policy.observe?.(outcome('b', { ttftMs: 300 }), 3);
    policy.observe?.(outcome('c', { ttftMs: 10 }), 30);
    // With three instances the 0.84 quantile of the first probes is the highest of them, so some calm ones come first.
    const calm = [candidateWith('a'), candidateWith('b'), candidateWith('c')];
    for (let i = 0; i < 20; i++) policy.choose(choiceInput(calm));
    policy.choose(
      choiceInput([
        candidateWith('a', { inFlight: 3 }),
        candidateWith('b', { inFlight: 3 }),
        candidateWith('c', { inFlight: 3 }),
      ]),
    );
    for (let i = 0; i < 4; i++)
      policy.choose(
        choiceInput([
          candidateWith('a', { inFlight: 3 }),
          candidateWith('b', { inFlight: 3 }),
          candidateWith('c', { inFlight: 3 }),
        ]),
      );
    expect(policy.choose(choiceInput(candidates)).index).toBe(1);
  });

  test('takes the fewest in flight when all are hot', () => {
    const policy = policies.prequal.create(policyEnv());
    for (let i = 0; i < 100; i++) policy.choose(choiceInput([candidateWith('a'), candidateWith('b')]));
    policy.observe?.(outcome('a', { ttftMs: 1 }), 9);
    policy.observe?.(outcome('b', { ttftMs: 1000 }), 8);
    expect(
      policy.choose(choiceInput([candidateWith('a', { inFlight: 9 }), candidateWith('b', { inFlight: 8 })])).index,
    ).toBe(1);
  });

  test('forgets latencies after 30 s', () => {
    const env = policyEnv();
    const policy = policies.prequal.create(env);
    policy.observe?.(outcome('a', { ttftMs: 500 }), 0);
    env.clock.advance(31_000);
    policy.observe?.(outcome('b', { ttftMs: 100 }), 0);
    const both = [candidateWith('a'), candidateWith('b')];
    expect(policy.choose(choiceInput(both, { nowMs: env.clock.nowMs() })).index).toBe(0);
  });
});
