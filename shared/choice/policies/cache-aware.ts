import type { CandidateState } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { Choice, ChoiceInput, PolicyKind } from './policy.ts';
import { hitRatioOf } from './readings.ts';

const CACHE_THRESHOLD = 0.3;
const BALANCE_ABS = 64;
const BALANCE_REL = 1.5;

/**
 * cache_aware of the SGLang router, SMG and vllm-router, with the defaults of their command lines: if max − min in
 * flight > 64 and max > 1.5·min: least loaded. Else the instance with the longest match if it covers more than 0.3 of
 * the prompt, else the least loaded. Among equal matches the less loaded, then at random. Tuning: the match comes in
 * tokens from the shared view of the caches, which knows of evictions, where the originals keep a tree of characters
 * that they sent; the load counts all entries' requests.
 */
export const cacheAware: PolicyKind = {
  name: 'cache-aware',
  describe: 'longest match above 0.3 of the prompt, unless loads are out of balance',
  needsPrediction: false,
  create: () => ({ choose: chooseCacheAware }),
};

function chooseCacheAware({ request, candidates, scores, rng }: ChoiceInput): Choice {
  const n = candidates.length;
  let min = Infinity;
  let max = 0;
  let best = 0;
  for (const candidate of candidates) {
    min = Math.min(min, candidate.inFlight);
    max = Math.max(max, candidate.inFlight);
    best = Math.max(best, hitRatioOf(request, candidate));
  }
  const imbalanced = max - min > BALANCE_ABS && max > BALANCE_REL * min;
  const follow = !imbalanced && best > CACHE_THRESHOLD;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    scores[i] = candidate.inFlight - (follow ? hitRatioOf(request, candidate) * 1e6 : 0);
  }
  return argminRandomTies(scores, n, rng);
}
