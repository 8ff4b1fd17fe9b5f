import { type CandidateState, uncachedTokens } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { Choice, ChoiceInput, PolicyKind } from './policy.ts';
import { blockHitRatioOf, peakPrefillPerMs } from './readings.ts';

/** Cached share of the prompt from which an instance counts as the request's home. */
const AFFINITY = 0.8;
const MAX_PENALTY_MS = 18_000;
/** In-flight tokens at which the token-load score reaches its end. */
const TOKEN_CEILING = 4_194_304;

/**
 * llm-d's sticky until saturated ("token-aware", llm-d/llm-d-router @ ebab687): instances with at least 0.80 of the
 * prompt cached are kept alone, unless the best of them would wait over 18,000 ms longer than the best of the others,
 * by in-flight uncached tokens / peak prefill throughput. Among those kept, the fewest in-flight uncached tokens with
 * this request's own; ties at random. Defaults throughout. Tuning: the peak throughput, one number of a table in the
 * original, is per instance what a chunk takes by its own step-time law (readings.ts), so that a mixed fleet is not
 * measured by one GPU's number; in-flight tokens are the ledger's.
 */
export const tokenAware: PolicyKind = {
  name: 'token-aware',
  describe: 'stays with the cached prefix until saturated, else fewest tokens in flight',
  needsPrediction: false,
  create: () => ({ choose: chooseTokenAware }),
};

function chooseTokenAware({ request, candidates, scores, rng }: ChoiceInput): Choice {
  const n = candidates.length;
  let sticky = Infinity;
  let others = Infinity;
  for (const candidate of candidates) {
    const waitMs = candidate.pendingTokens / peakPrefillPerMs(candidate);
    if (blockHitRatioOf(request, candidate) >= AFFINITY) sticky = Math.min(sticky, waitMs);
    else others = Math.min(others, waitMs);
  }
  const keepAll = sticky === Infinity || sticky - others > MAX_PENALTY_MS;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    const load = Math.min(1, (candidate.pendingTokens + uncachedTokens(request, candidate)) / TOKEN_CEILING);
    // A load is at most 1, so who was filtered out ranks after everyone kept.
    scores[i] = keepAll || blockHitRatioOf(request, candidate) >= AFFINITY ? load : load + 2;
  }
  return argminRandomTies(scores, n, rng);
}
