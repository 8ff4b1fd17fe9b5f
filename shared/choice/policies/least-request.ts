import { argminRandomTies } from '../ties.ts';
import type { PolicyKind } from './policy.ts';

/**
 * Fewest requests in flight (the doors' ledgers plus this entry's reservations, so it counts all entries), ties at
 * random.
 */
export const leastRequest: PolicyKind = {
  name: 'least-request',
  describe: 'fewest requests in flight',
  needsPrediction: false,
  create: () => ({
    choose({ candidates, scores, rng }) {
      for (let i = 0; i < candidates.length; i++) scores[i] = candidates[i]?.inFlight ?? Infinity;
      return argminRandomTies(scores, candidates.length, rng);
    },
  }),
};
