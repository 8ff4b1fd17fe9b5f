import type { Objective } from './objective.ts';

/**
 * Mean end-to-end time: TTFT plus the answer at the predicted pace. A millisecond of prefill delays each running
 * sequence by one.
 */
export const e2e: Objective = {
  name: 'e2e',
  describe: 'time to the last token',
  weights: { queue: 0.25, busy: 1, decode: 1, paceTokens: 100_000, kv: 4, block: 1.2 },
  costMs: (prediction, { outputTokens }) => prediction.ttftMs + outputTokens * prediction.tpotMs,
};
