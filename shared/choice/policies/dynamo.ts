import type { CandidateState } from '../../candidate.ts';
import { argminRandomTies } from '../ties.ts';
import type { PolicyKind } from './policy.ts';

const BLOCK_TOKENS = 16;

/**
 * NVIDIA Dynamo's KV router (docs/design, router-concepts.md @ 03037af), argmin with ties at random:
 *
 *   cost = max(active prefill blocks + prompt blocks − overlap blocks, 0) + active KV blocks + prompt blocks
 *
 * in blocks of 16 tokens, with the defaults: prefill load scale 1, overlap credit 1 without decay, no weight on the
 * count of requests, temperature 0. Tuning: the active blocks are the door's exact ledger with this entry's
 * reservations, where Dynamo estimates them from events.
 */
export const dynamo: PolicyKind = {
  name: 'dynamo',
  describe: 'prefill blocks left to compute plus KV blocks in use',
  needsPrediction: false,
  create: () => ({
    choose({ request, candidates, scores, rng }) {
      const prompt = request.promptTokens / BLOCK_TOKENS;
      for (let i = 0; i < candidates.length; i++) {
        const candidate = candidates[i] as CandidateState;
        const prefill = Math.max(
          0,
          candidate.pendingTokens / BLOCK_TOKENS + prompt - Math.floor(candidate.hitTokens / BLOCK_TOKENS),
        );
        // Requests that wait for room have been sent, so Dynamo counts their blocks as active too.
        const decode = (candidate.usedTokens + candidate.waitingTokens) / BLOCK_TOKENS + prompt;
        scores[i] = prefill + decode;
      }
      return argminRandomTies(scores, candidates.length, rng);
    },
  }),
};
