import type { Objective } from './index.ts';

/** Mean time to first token. Weights: the plateau found over mixed clusters and loads (docs/learning.md). */
export const ttft: Objective = {
  name: 'ttft',
  describe: 'time to first token',
  weights: { queue: 0.5, decode: 0.26, kv: 2, block: 1.2 },
  costMs: (prediction) => prediction.ttftMs,
};
