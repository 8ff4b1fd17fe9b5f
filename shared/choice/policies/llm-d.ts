import type { CandidateState } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { Choice, ChoiceInput, PolicyKind } from './policy.ts';
import { blockHitRatioOf, kvUsageRatioOf } from './readings.ts';

const QUEUE_WEIGHT = 2;
const KV_WEIGHT = 2;
const PREFIX_WEIGHT = 3;

/**
 * llm-d-router's built-in profile (llm-d/llm-d-router @ ebab687): argmax of
 *
 *   2·(maxWaiting − waiting)/(maxWaiting − minWaiting) + 2·(1 − k) + 3·cached share of the prompt
 *
 * with the queue's term 1 for all when nobody's queue differs; picked by max score, ties at random. Weights are the
 * defaults. Tuning: `waiting` and k are the ledger's with this entry's reservations, where llm-d scrapes gauges; the
 * cache is the shared view, where llm-d guesses by its own LRU.
 */
export const llmD: PolicyKind = {
  name: 'llm-d',
  describe: 'weighted sum of queue, KV use and cached prefix (2, 2, 3)',
  needsPrediction: false,
  create: () => ({ choose: chooseLlmD }),
};

function chooseLlmD({ request, candidates, scores, rng }: ChoiceInput): Choice {
  const n = candidates.length;
  let min = Infinity;
  let max = 0;
  for (const { waiting } of candidates) {
    min = Math.min(min, waiting);
    max = Math.max(max, waiting);
  }
  const spread = max - min;
  for (let i = 0; i < n; i++) {
    const candidate = candidates[i] as CandidateState;
    const queue = spread > 0 ? (max - candidate.waiting) / spread : 1;
    scores[i] = -(
      QUEUE_WEIGHT * queue +
      KV_WEIGHT * (1 - kvUsageRatioOf(candidate)) +
      PREFIX_WEIGHT * blockHitRatioOf(request, candidate)
    );
  }
  return argminRandomTies(scores, n, rng);
}
