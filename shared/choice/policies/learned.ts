import { softmin } from '../ties.ts';
import type { PolicyKind } from './policy.ts';

/**
 * Lowest predicted cost: own predicted latency plus the price of what the request does to others (score.ts). Near-ties
 * are drawn at random with a temperature that grows with the age of the state, so that entries which see the same stale
 * state do not herd.
 */
export const learned: PolicyKind = {
  name: 'learned',
  describe: 'lowest predicted latency plus the price of the work caused to others',
  needsPrediction: true,
  create: () => ({
    choose({ candidates, costs, scores, temperatureMs, rng }) {
      for (let i = 0; i < candidates.length; i++) scores[i] = costs[i] as number;
      return softmin(scores, candidates.length, temperatureMs, rng);
    },
  }),
};
