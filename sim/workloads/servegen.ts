import { csvLines, numberOf, textOf } from './trace-fields.ts';
import type { TraceFormat, TraceRow } from './trace-format.ts';
import { unshared } from './unshared.ts';

/**
 * Requests drawn from ServeGen's client statistics: CSV of `t_s` (s), `client`, `input_tokens`, `output_tokens`. No
 * prompt shares anything.
 */
export const servegen: TraceFormat = {
  recognises: (line) => /(^|,)"?t_s"?(,|$)/.test(line) && line.includes('input_tokens'),
  read: (files) => {
    const rows: TraceRow[] = [];
    for (const file of files) {
      for (const line of csvLines(file, ['t_s', 'client', 'input_tokens', 'output_tokens'])) {
        rows.push(
          unshared(
            rows.length,
            numberOf(line, 't_s', 0) * 1000,
            numberOf(line, 'input_tokens', 1),
            numberOf(line, 'output_tokens', 0),
            textOf(line, 'client'),
          ),
        );
      }
    }
    return rows;
  },
};
