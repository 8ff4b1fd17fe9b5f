import type { PolicyKind } from './policy.ts';

/** Uniform over the candidates. */
export const random: PolicyKind = {
  name: 'random',
  describe: 'uniformly at random',
  needsPrediction: false,
  create: () => ({
    choose({ candidates, scores, rng }) {
      const n = candidates.length;
      for (let i = 0; i < n; i++) scores[i] = 0;
      return { index: Math.min(n - 1, Math.floor(rng() * n)), propensity: 1 / n };
    },
  }),
};
