import { badField, csvLines, numberOf, textOf, type TraceLine } from './trace-fields.ts';
import type { TraceFormat, TraceRow } from './trace-format.ts';
import { unshared } from './unshared.ts';

const TIME = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d+)?(?:Z|[+-]\d\d:?\d\d)?$/;

/**
 * Azure's LLM inference traces: CSV of `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`. Lengths alone: no prompt shares
 * anything. Times are taken from the earliest request; their zone does not matter, since it is the same in all lines.
 */
export const azure: TraceFormat = {
  recognises: (line) => /^"?TIMESTAMP\b/.test(line) && line.includes('ContextTokens'),
  read: (files) => {
    const rows: TraceRow[] = [];
    for (const file of files) {
      for (const line of csvLines(file, ['TIMESTAMP', 'ContextTokens', 'GeneratedTokens'])) {
        rows.push(
          unshared(rows.length, wallMs(line), numberOf(line, 'ContextTokens', 1), numberOf(line, 'GeneratedTokens', 0)),
        );
      }
    }
    const firstMs = rows.reduce((least, row) => Math.min(least, row.arrivalMs), Infinity);
    for (const row of rows) row.arrivalMs -= firstMs;
    return rows;
  },
};

/** The date in ms with its fraction: `Date` would read it in the local zone and drop what is below the millisecond. */
function wallMs(line: TraceLine): number {
  const [, year, month, day, hour, minute, second, fraction] = TIME.exec(textOf(line, 'TIMESTAMP').trim()) ?? [];
  if (year === undefined) throw badField(line, 'TIMESTAMP', 'a time such as 2023-11-16 18:15:46.6805900');
  return (
    Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second)) +
    Number(fraction ?? 0) * 1000
  );
}
