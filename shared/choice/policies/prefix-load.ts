import type { CandidateState } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { ChoiceInput, Choice, PolicyKind } from './policy.ts';

/** Difference of requests in flight between the busiest and the idlest above which balance goes before the cache. */
const IMBALANCE = 8;

/**
 * AIBrix's prefix-cache policy (pkg/plugins/gateway/algorithms/prefix_cache.go), the paper's main baseline:
 * if max − min in flight > 8: least loaded. Else by cached share of the prompt, descending, then load: the first whose
 * load is at most mean + 1 σ; none: least loaded. Load is requests in flight, fresher than the gauge that AIBrix reads.
 * Ties at random.
 */
export const prefixLoad: PolicyKind = {
  name: 'prefix-load',
  describe: 'longest cached prefix among instances that are not overloaded',
  needsPrediction: false,
  create: () => ({ choose: choosePrefixLoad }),
};

function choosePrefixLoad(input: ChoiceInput): Choice {
  const { candidates, scores, rng } = input;
  const n = candidates.length;
  let min = Infinity;
  let max = 0;
  let sum = 0;
  let squares = 0;
  for (const { inFlight } of candidates) {
    min = Math.min(min, inFlight);
    max = Math.max(max, inFlight);
    sum += inFlight;
    squares += inFlight * inFlight;
  }
  const mean = sum / n;
  const bound = mean + Math.sqrt(Math.max(0, squares / n - mean * mean));
  const balanced = max - min <= IMBALANCE;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    // One number ranks by hit first and by load second; who is over the bound comes after everyone else, by load.
    const hit = candidate.hitTokens / Math.max(1, input.request.promptTokens);
    const eligible = balanced && candidate.inFlight <= bound;
    scores[i] = eligible ? candidate.inFlight - hit * 1e6 : candidate.inFlight + 1e6;
  }
  return argminRandomTies(scores, n, rng);
}
