import type { Objective } from './objective.ts';

/**
 * What a millisecond of the whole answer counts against one of TTFT: enough that no instance is driven to where its
 * streams crawl, little enough that TTFT stays what is minimised.
 */
const PACE = 0.03;
/** Beyond it, long answers would outweigh every TTFT. */
const PACE_TOKENS = 200;

/** Mean time to first token, with a little weight on the rest of the answer. Weights: docs/decisions/0006-choice.md. */
export const ttft: Objective = {
  name: 'ttft',
  describe: 'time to first token',
  weights: { queue: 0.25, busy: 1, decode: PACE, paceTokens: PACE_TOKENS, kv: 1, block: 1.2 },
  costMs: (prediction, { outputTokens }) =>
    prediction.ttftMs + PACE * Math.min(PACE_TOKENS, outputTokens) * prediction.tpotMs,
};
