import { describe, expect, test } from 'vitest';
import type { CandidateState } from '../../../../shared/candidate.ts';
import { policies } from '../../../../shared/choice/policies/index.ts';
import type { Policy } from '../../../../shared/choice/policies/policy.ts';
import { candidateWith, requestOf } from '../../../helpers/reports.ts';
import { choiceInput, counts, policyEnv } from '../inputs.ts';
import { busy, live, shareOf, type World } from './world.ts';

/**
 * One of two instances is busier than the other in turn, which triples its time; a third has yet more to do, at random.
 */
const queues: World = {
  candidates: (draw) => {
    const light = Math.floor(draw() * 3) + 1;
    return [busy('a', 'k', light), busy('b', 'k', light + 3, 2)];
  },
  ttftMs: (candidate, promptTokens) => (100 + 0.2 * promptTokens) * (candidate.waiting > 0 ? 3 : 1),
};

test('learns from 100 samples and 10 s on what a queue costs, and is the same for the same seed', () => {
  const chosen = live('llm-d-latency', queues, 400);
  expect(shareOf(0, chosen.slice(0, 100), 100)).toBeLessThan(0.9);
  // The weighted draw gives the worst of two 0.01 of the best's 1.01.
  expect(shareOf(0, chosen, 200)).toBeGreaterThan(0.95);
  expect(live('llm-d-latency', queues, 400)).toEqual(chosen);
});

describe('once trained on ttft = 10 ms per uncached token, tpot = 10 ms per request in flight', () => {
  function trained(): Policy {
    const env = policyEnv();
    const policy = policies['llm-d-latency'].create(env);
    for (let i = 0; i < 400; i++) {
      env.clock.advance(100);
      const candidates = [candidateWith('a', { inFlight: i % 7 }, (i * 50) % 1000)];
      const { memo } = policy.choose(choiceInput(candidates, { nowMs: env.clock.nowMs(), rng: env.rng }));
      const uncached = 1000 - (candidates[0] as CandidateState).hitTokens;
      policy.observe?.(
        { instance: 'a', atMs: 0, ok: true, ttftMs: 10 * uncached, tpotMs: 10 * (i % 7), outputTokens: 10 },
        memo,
      );
    }
    env.clock.advance(10_000);
    return policy;
  }
  const policy = trained();

  test('stays with 0.8 of the prompt cached while that costs at most 5 s', () => {
    expect(
      counts(policy, choiceInput([candidateWith('a', { inFlight: 1 }, 850), candidateWith('b', { inFlight: 1 }, 700)])),
    ).toEqual([200, 0]);
  });

  test('without objectives, idle instances come first', () => {
    expect(
      counts(policy, choiceInput([candidateWith('a', { inFlight: 1 }, 700), candidateWith('b', {}, 100)])),
    ).toEqual([0, 200]);
  });

  test('those that meet the objectives get 99 %, the one with the least headroom the most', () => {
    const request = requestOf(1000, { sloTtftMs: 7000, sloTpotMs: 100 });
    const candidates = [
      candidateWith('a', { inFlight: 1 }, 700),
      candidateWith('b', { inFlight: 1 }, 500),
      candidateWith('c', { inFlight: 1 }, 100),
    ];
    const [a = 0, b = 0, c = 0] = counts(policy, choiceInput(candidates, { request }), 3000);
    expect(c).toBeGreaterThan(0);
    expect(c).toBeLessThan(80);
    expect(b).toBeGreaterThan(20 * a);
  });
});
