import type { PolicySummary } from '../sim/fleet/summary.ts';

const COLUMNS = [
  'policy',
  'TTFT mean',
  '±95 %',
  'p50',
  'p90',
  'p99',
  'TPOT',
  'E2E',
  'hit',
  'goodput',
  'regret',
  'APE',
  'trusted',
  'failed',
] as const;

/** One line a policy, latencies in ms: means over the seeds. */
export function policyTable(summary: Record<string, PolicySummary>): string {
  const rows = Object.entries(summary).map(([policy, one]) => [
    policy,
    ms(one.ttftMs.mean),
    ms(one.ci95),
    ms(one.ttftMs.p50),
    ms(one.ttftMs.p90),
    ms(one.ttftMs.p99),
    fixed(one.tpotMs.mean, 1),
    ms(one.e2eMs.mean),
    percent(one.kvHitRatio),
    percent(one.goodput),
    ms(one.regretMs),
    fixed(one.medianApe, 3),
    one.firstTrustedAtS === null ? '-' : `${one.firstTrustedAtS.toFixed(1)} s`,
    String(Math.round(one.failed)),
  ]);
  return table([[...COLUMNS], ...rows]);
}

/**
 * Rows of cells as aligned text: the first column to the left, the others to the right. Columns that are `-` throughout
 * are left out.
 */
export function table(rows: readonly (readonly string[])[]): string {
  const width = rows[0]?.length ?? 0;
  const kept = Array.from({ length: width }, (_, at) => at).filter(
    (at) => at === 0 || rows.slice(1).some((row) => row[at] !== '-'),
  );
  const widths = kept.map((at) => Math.max(...rows.map((row) => (row[at] ?? '').length)));
  return rows
    .map((row) =>
      kept
        .map((at, i) =>
          at === 0 ? (row[at] ?? '').padEnd(widths[i] ?? 0) : (row[at] ?? '').padStart((widths[i] ?? 0) + 2),
        )
        .join(''),
    )
    .join('\n');
}

/** A share as a percentage. */
export function percent(value: number | null): string {
  return value === null ? '-' : `${(100 * value).toFixed(1)} %`;
}

/** A number with so many decimals. */
export function fixed(value: number | null, decimals: number): string {
  return value === null ? '-' : value.toFixed(decimals);
}

function ms(value: number | null): string {
  return fixed(value, value !== null && Math.abs(value) < 100 ? 1 : 0);
}
