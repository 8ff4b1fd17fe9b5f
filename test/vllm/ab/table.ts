import type { LoadResult } from '../../../sim/workloads/index.ts';

/** What clients saw of one router. */
export interface Row {
  name: string;
  result: LoadResult;
  /** share of the servers' step time that the machine added */
  lostRatio: number;
}

/**
 * Mean TTFT of the prototype, with the true coefficients and an exact view of the caches, that the target is set by;
 * ms.
 */
const PROTOTYPE_TTFT_MS = 294;
const LEARNED = 'learned, after a minute';
/**
 * Promised of `learned` after a minute: at most so much of the prototype's mean TTFT, and at least so many times better
 * than these.
 */
const TARGET_RATIO = 1.1;
const TARGETS: ReadonlyMap<string, number> = new Map([
  ['vllm-router', 3.5],
  ['smg', 2.4],
]);

const HEAD = [
  'router'.padEnd(26),
  'TTFT mean',
  'p50',
  'p99',
  'E2E mean',
  'cached tokens',
  'failed',
  'sent late p99',
  'steps late',
].join('  ');

/** Prints the table and what is promised of it. */
export function printTable(rows: readonly Row[], title: string): void {
  console.log(`\n${title}; times in ms`);
  console.log(HEAD);
  for (const row of rows) console.log(line(row));
  for (const { result } of rows)
    for (const [kind, example] of Object.entries(result.examples)) console.log(`  ${kind}: ${example.slice(0, 300)}`);
  const learned = meanOf(rows, LEARNED);
  if (learned === undefined) return;
  console.log(`\n${LEARNED}, mean TTFT`);
  promise(
    `/ the prototype's ${PROTOTYPE_TTFT_MS} ms`,
    learned / PROTOTYPE_TTFT_MS,
    `<= ${TARGET_RATIO}`,
    learned <= TARGET_RATIO * PROTOTYPE_TTFT_MS,
  );
  for (const { name } of rows) {
    if (name === LEARNED) continue;
    const ratio = (meanOf(rows, name) ?? NaN) / learned;
    const target = TARGETS.get(name);
    promise(
      `better than ${name}`,
      ratio,
      target === undefined ? undefined : `>= ${target}`,
      target !== undefined && ratio >= target,
    );
  }
}

/** One router's figures under `HEAD`. */
export function line({ name, result, lostRatio }: Row): string {
  const { ttftMs, e2eMs, lateMs, kvHitRatio, promptTokens, failed, failures } = result;
  const cells = [
    name.padEnd(26),
    whole(ttftMs.mean, 9),
    whole(ttftMs.p50, 3),
    whole(ttftMs.p99, 3),
    whole(e2eMs.mean, 8),
    kvHitRatio === undefined
      ? '-'.padStart(13)
      : `${Math.round(kvHitRatio * promptTokens)} ${(100 * kvHitRatio).toFixed(1)} %`.padStart(13),
    String(failed).padStart(6),
    whole(lateMs.p99, 13),
    `${(100 * lostRatio).toFixed(2)} %`.padStart(10),
  ];
  const why = Object.entries(failures).map(([kind, count]) => `${kind} ${count}`);
  return [...cells, ...why].join('  ');
}

function whole(value: number | undefined, width: number): string {
  return (value === undefined ? '-' : String(Math.round(value))).padStart(width);
}

function meanOf(rows: readonly Row[], name: string): number | undefined {
  return rows.find((row) => row.name === name)?.result.ttftMs.mean;
}

function promise(what: string, ratio: number, target: string | undefined, met: boolean): void {
  console.log(
    `  ${what.padEnd(36)} ${ratio.toFixed(2).padStart(6)}x${target === undefined ? '' : `   target ${target}: ${met ? 'met' : 'MISSED'}`}`,
  );
}
