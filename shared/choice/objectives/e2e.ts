import type { Objective } from './index.ts';

/** Mean end-to-end time: TTFT plus the answer at the predicted pace. A millisecond of prefill delays each running sequence by one: d = 1. */
export const e2e: Objective = {
  name: 'e2e',
  describe: 'time to the last token',
  weights: { queue: 0.5, decode: 1, kv: 4, block: 1.2 },
  costMs: (prediction, request, meanOutputTokens) => {
    const tokens = request.maxTokens > 0 ? Math.min(request.maxTokens, meanOutputTokens) : meanOutputTokens;
    return prediction.ttftMs + tokens * prediction.tpotMs;
  },
};
