import { pino } from 'pino';
import type { Log } from '../../shared/env.ts';

/** A logger whose lines the test can read. */
export function logSpy(): { log: Log; lines: { level: number; msg: string }[] } {
  const lines: { level: number; msg: string }[] = [];
  const log = pino(
    { level: 'trace' },
    { write: (line: string) => void lines.push(JSON.parse(line) as { level: number; msg: string }) },
  );
  return { log, lines };
}
