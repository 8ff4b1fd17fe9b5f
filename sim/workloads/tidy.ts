import { csvLines, numberOf } from './trace-fields.ts';
import type { TraceFormat, TraceRow } from './trace-format.ts';
import { unshared } from './unshared.ts';

/**
 * A request log: CSV of at least `start_us` (µs, any origin), `input_tokens`, `output_tokens`. It does not say which
 * prompts share what. Failed requests, which have no tokens, are left out.
 */
export const tidy: TraceFormat = {
  recognises: (line) => /(^|,)"?start_us"?(,|$)/.test(line) && line.includes('input_tokens'),
  read: (files) => {
    const rows: TraceRow[] = [];
    for (const file of files) {
      for (const line of csvLines(file, ['start_us', 'input_tokens', 'output_tokens'])) {
        const inputTokens = numberOf(line, 'input_tokens', 0);
        if (inputTokens > 0)
          rows.push(
            unshared(
              rows.length,
              numberOf(line, 'start_us', -Infinity) / 1000,
              inputTokens,
              numberOf(line, 'output_tokens', 0),
            ),
          );
      }
    }
    const firstMs = rows.reduce((least, row) => Math.min(least, row.arrivalMs), Infinity);
    for (const row of rows) row.arrivalMs -= firstMs;
    return rows;
  },
};
