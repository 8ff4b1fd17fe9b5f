import type { TraceRow } from './trace-format.ts';

/** A request that shares its prompt with no other: one block, with an id of its own. */
export function unshared(
  id: number,
  arrivalMs: number,
  inputTokens: number,
  outputTokens: number,
  client?: string,
): TraceRow {
  return { arrivalMs, inputTokens, outputTokens, hashIds: [id], blockTokens: inputTokens, client };
}
