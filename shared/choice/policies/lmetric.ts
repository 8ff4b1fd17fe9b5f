import { uncachedTokens } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { PolicyKind } from './policy.ts';

/**
 * LMETRIC (arXiv 2603.15202): argmin P·BS, P = uncached prompt tokens queued there plus this request's, BS = batch
 * size. Batch size + 1, or an idle instance's product vanishes whatever its queue.
 */
export const lmetric: PolicyKind = {
  name: 'lmetric',
  describe: 'uncached prefill tokens × batch size',
  needsPrediction: false,
  create: () => ({
    choose({ request, candidates, scores, rng }) {
      for (let i = 0; i < candidates.length; i++) {
        const candidate = candidates[i];
        scores[i] = candidate
          ? (candidate.pendingTokens + uncachedTokens(request, candidate)) * (candidate.inFlight + 1)
          : Infinity;
      }
      return argminRandomTies(scores, candidates.length, rng);
    },
  }),
};
