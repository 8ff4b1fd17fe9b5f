import type { TraceRequest } from '../../../sim/workloads/index.ts';

/** Share of the prompt tokens that an endless prefix cache would hit. */
export function endlessHitRatio(requests: readonly TraceRequest[]): number {
  const seen = new Set<number>();
  let hits = 0;
  for (const { hashIds, blockTokens, inputTokens } of requests) {
    const known = hashIds.findIndex((id) => !seen.has(id));
    hits += Math.min(inputTokens, (known < 0 ? hashIds.length : known) * blockTokens);
    for (const id of hashIds) seen.add(id);
  }
  return hits / requests.reduce((sum, one) => sum + one.inputTokens, 0);
}
