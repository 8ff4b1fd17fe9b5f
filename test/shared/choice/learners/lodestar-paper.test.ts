import { expect, test } from 'vitest';
import { policies } from '../../../../shared/choice/policies/index.ts';
import { candidateWith } from '../../../helpers/reports.ts';
import { choiceInput, policyEnv } from '../inputs.ts';
import { busy, live, shareOf, type World } from './world.ts';

/** Two kinds of GPU under the same load; the second takes three times as long. */
const twoKinds: World = {
  candidates: (draw) => {
    const decoding = Math.floor(draw() * 4);
    return [busy('a', 'fast', decoding), busy('b', 'slow', decoding)];
  },
  ttftMs: (candidate, promptTokens) => (100 + 0.2 * promptTokens) * (candidate.report.instance === 'b' ? 3 : 1),
};

test('learns which kind is faster, keeps exploring, and is the same for the same seed', { timeout: 60_000 }, () => {
  const chosen = live('lodestar-paper', twoKinds, 500);
  // Until the first round, after 30 s and 300 samples, prefix-load's algorithm shares them out.
  expect(shareOf(0, chosen.slice(0, 300), 300)).toBeCloseTo(0.5, 1);
  expect(shareOf(0, chosen, 100)).toBeGreaterThan(0.9);
  expect(live('lodestar-paper', twoKinds, 350)).toEqual(chosen.slice(0, 350));
});

test('leaves requests to prefix-load until it has a model, then explores', { timeout: 60_000 }, () => {
  const env = policyEnv();
  const policy = policies['lodestar-paper'].create(env);
  const loaded = () =>
    choiceInput([candidateWith('a', { inFlight: 2 }), candidateWith('b')], { nowMs: env.clock.nowMs(), rng: env.rng });
  for (let i = 0; i < 20; i++) expect(policy.choose(loaded())).toMatchObject({ index: 1, propensity: 1 });
  for (let i = 0; i < 400; i++) {
    env.clock.advance(100);
    const { index, memo } = policy.choose(
      choiceInput([candidateWith('a'), candidateWith('b')], { nowMs: env.clock.nowMs(), rng: env.rng }),
    );
    policy.observe?.({ instance: 'ab'[index]!, atMs: 0, ok: true, ttftMs: 100, tpotMs: 10, outputTokens: 10 }, memo);
  }
  env.clock.advance(10_000);
  expect(policy.choose(loaded()).propensity).toBeLessThan(1);
});

test('learns nothing from failures and from more than 15 s', () => {
  const chosen = live('lodestar-paper', { ...twoKinds, ttftMs: () => 15_001 }, 500);
  expect(shareOf(0, chosen, 200)).toBeCloseTo(0.5, 1);
});
