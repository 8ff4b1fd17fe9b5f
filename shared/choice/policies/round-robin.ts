import type { PolicyKind } from './policy.ts';

/** Each candidate in turn, by instance id, from a random start so that several entries do not move in step. */
export const roundRobin: PolicyKind = {
  name: 'round-robin',
  describe: 'each instance in turn',
  needsPrediction: false,
  create: () => {
    let next = -1;
    return {
      choose({ candidates, scores, rng }) {
        const n = candidates.length;
        if (next < 0) next = Math.floor(rng() * n);
        const index = next % n;
        next = (index + 1) % n;
        for (let i = 0; i < n; i++) scores[i] = (i - index + n) % n;
        return { index, propensity: 1 };
      },
    };
  },
};
