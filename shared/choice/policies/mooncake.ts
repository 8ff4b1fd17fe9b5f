import type { CandidateState } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { PolicyKind } from './policy.ts';
import { ownPrefillMs, queuedPrefillMs } from './readings.ts';

/**
 * Mooncake's Conductor (arXiv 2407.00079, algorithm 1): argmin of T_queue + T_prefill(prompt, own match), ties at
 * random. The branch that copies a longer match over the network is left out: vLLM instances here do not move KV, so
 * only the own match counts; nor is a request refused, which is the agent's business. Tuning: both times come from the
 * instance's own step-time law, which stands for the offline fit of the original.
 */
export const mooncake: PolicyKind = {
  name: 'mooncake',
  describe: 'shortest prefill queue plus own prefill time',
  needsPrediction: false,
  create: () => ({
    choose({ request, candidates, scores, rng }) {
      for (let i = 0; i < candidates.length; i++) {
        const candidate = candidates[i] as CandidateState;
        scores[i] = queuedPrefillMs(candidate) + ownPrefillMs(request, candidate);
      }
      return argminRandomTies(scores, candidates.length, rng);
    },
  }),
};
