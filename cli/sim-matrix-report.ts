import type { MatrixSummary, Ratio, Versus } from '../sim/fleet/matrix-summary.ts';
import type { CellResult } from '../sim/fleet/run-matrix.ts';
import { fixed, percent, policyTable, table } from './sim-report.ts';

/** A cell's heading and its table. */
export function cellText({ cell, capacityRps, offeredRps, runs, dropped, summary }: CellResult): string {
  const left = dropped.aboveMaxPrompt + dropped.heldByNone;
  return (
    `cell ${cell.number}: ${cell.cluster}, ${cell.trace}, load ${cell.load}, ${cell.entries} ${cell.entries === 1 ? 'entry' : 'entries'}; ` +
    `${runs[0]?.requests} requests at ${offeredRps.toFixed(2)}/s of ${capacityRps.toFixed(2)}/s${left > 0 ? `, ${left} left out as too long` : ''}\n${policyTable(summary)}\n`
  );
}

/** The whole matrix in some tables: every policy, `learned` by cell and by axis. */
export function summaryText(summary: MatrixSummary): string {
  const parts = [
    'How many times better than a baseline (baseline / policy; above 1 is better)',
    policiesTable(summary),
  ];
  if (summary.policies['learned']) {
    parts.push(
      '',
      '`learned` in each cell, mean TTFT in ms',
      cellsTable(summary),
      '',
      '`learned` by axis, mean TTFT',
      axesTable(summary),
      '',
      ...verdict(summary),
    );
  }
  return parts.join('\n');
}

function policiesTable({ policies }: MatrixSummary): string {
  const head = [
    'policy',
    'TTFT × prefix-load',
    '95 %',
    'min',
    'P99 ×',
    'E2E ×',
    'E2E min',
    'TTFT × best',
    '95 %',
    'min',
    '>= 1',
    'TTFT × paper',
    'min',
  ];
  const rows = Object.entries(policies)
    .map(([name, { prefixLoad, best, paper }]) => ({ name, prefixLoad, best, paper }))
    .toSorted((a, b) => (b.best?.ttftMean.geomean ?? 0) - (a.best?.ttftMean.geomean ?? 0));
  return table([
    head,
    ...rows.map(({ name, prefixLoad, best, paper }) => [
      name,
      ...ratio(prefixLoad?.ttftMean),
      times(prefixLoad?.ttftP99.geomean),
      times(prefixLoad?.e2eMean.geomean),
      times(prefixLoad?.e2eMean.min),
      ...ratio(best?.ttftMean),
      percent(best?.ttftMean.shareAtLeast1 ?? null),
      times(paper?.ttftMean.geomean),
      times(paper?.ttftMean.min),
    ]),
  ]);
}

function cellsTable({ bestOfCell }: MatrixSummary): string {
  return table([
    ['cell', 'best baseline', 'its TTFT', 'learned', '× best', '× prefix-load'],
    ...bestOfCell.map((one) => [
      `${one.number} ${one.cell}`,
      one.best,
      fixed(one.bestMs, 0),
      fixed(one.learnedMs, 0),
      times(one.versusBest),
      times(one.versusPrefixLoad),
    ]),
  ]);
}

function axesTable({ byAxis }: MatrixSummary): string {
  const rows = Object.entries(byAxis).flatMap(([axis, values]) =>
    Object.entries(values).map(([value, { cells, prefixLoad, best }]) => [
      `${axis} ${value}`,
      String(cells),
      times(prefixLoad?.geomean),
      times(prefixLoad?.min),
      times(best?.geomean),
      times(best?.min),
    ]),
  );
  return table([['axis', 'cells', '× prefix-load', 'min', '× best', 'min'], ...rows]);
}

function verdict({ policies, gainKept }: MatrixSummary): string[] {
  const { prefixLoad, best, paper } = policies['learned'] as MatrixSummary['policies'][string];
  const line = (name: string, versus: Versus | null): string[] =>
    versus === null
      ? []
      : [
          `learned against ${name}: mean TTFT ${sentence(versus.ttftMean)}`,
          `  P99 ${sentence(versus.ttftP99)}`,
          `  E2E ${sentence(versus.e2eMean)}`,
          ...(versus.ttftMeanAfterWarmup
            ? [`  mean TTFT after the warm-up ${sentence(versus.ttftMeanAfterWarmup)}`]
            : []),
        ];
  return [
    ...line('prefix-load', prefixLoad),
    ...line('the best baseline of each cell', best),
    ...line('lodestar-paper', paper),
    ...(gainKept
      ? [
          `gain over prefix-load kept with the most entries: ${percent(gainKept.geomean)} (${gainKept.cells.join(', ')})`,
        ]
      : []),
  ];
}

function sentence({ cells, geomean, ci95, min, minCell, shareAtLeast1 }: Ratio): string {
  return `${times(geomean)} (95 %: ${times(ci95[0])} to ${times(ci95[1])}) over ${cells} cells, at least ${times(min)} (${minCell}), >= 1 in ${percent(shareAtLeast1)}`;
}

function ratio(one: Ratio | undefined): [string, string, string] {
  return one
    ? [times(one.geomean), `${one.ci95[0].toFixed(2)}–${one.ci95[1].toFixed(2)}`, times(one.min)]
    : ['-', '-', '-'];
}

function times(value: number | null | undefined): string {
  return value === null || value === undefined ? '-' : `${value.toFixed(value < 9.995 ? 2 : 1)}`;
}
