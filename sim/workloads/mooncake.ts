import { badField, jsonLines, numberOf, type TraceLine } from './trace-fields.ts';
import type { TraceFormat, TraceRow } from './trace-format.ts';

/** Tokens of the origin in one block. */
export const BLOCK_TOKENS = 512;
const GRID_MS = 3000;
/** Part of the origin's timestamps lie a millisecond beside the grid. */
const GRID_ERROR_MS = 1;

/**
 * Mooncake's traces: JSON lines of `timestamp` (ms), `input_length`, `output_length` (tokens) and `hash_ids`, one for
 * each 512 tokens. Timestamps that all lie on a 3 s grid are spread uniformly over their cell, since replayed as they
 * are they arrive in bursts that never happened.
 */
export const mooncake: TraceFormat = {
  recognises: (line) => line.startsWith('{') && line.includes('"hash_ids"'),
  read: (files, rng) => {
    const rows = files.flatMap((file) => Array.from(jsonLines(file), readRow));
    const cellMs = (row: TraceRow): number => Math.round(row.arrivalMs / GRID_MS) * GRID_MS;
    if (rows.length > 1 && rows.every((row) => Math.abs(row.arrivalMs - cellMs(row)) <= GRID_ERROR_MS)) {
      for (const row of rows) row.arrivalMs = cellMs(row) + rng() * GRID_MS;
    }
    return rows;
  },
};

function readRow(line: TraceLine): TraceRow {
  const inputTokens = numberOf(line, 'input_length', 1);
  const blocks = Math.ceil(inputTokens / BLOCK_TOKENS);
  const hashIds = line.field('hash_ids');
  if (!Array.isArray(hashIds) || !hashIds.every((id) => Number.isSafeInteger(id)) || hashIds.length !== blocks) {
    throw badField(line, 'hash_ids', `${blocks} integers, one for each ${BLOCK_TOKENS} tokens of input_length`);
  }
  return {
    arrivalMs: numberOf(line, 'timestamp', 0),
    inputTokens,
    outputTokens: numberOf(line, 'output_length', 0),
    hashIds: hashIds as number[],
    blockTokens: BLOCK_TOKENS,
  };
}
