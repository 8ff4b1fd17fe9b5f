import type { FitReport } from './evaluate.ts';
import type { Figures } from './figures.ts';

/** Above it, predictions would not be trusted to route by default (maxMedianApe in the configuration). */
const TRUSTED_APE = 0.35;

/** The report for people. */
export function reportText(report: FitReport): string {
  const { n, failed, trainedOn, testedOn, leftOut, ttft, promptSizeAlone, lawAlone, format } = report;
  const rows = [
    ['TTFT, predicted by', 'median error', 'p90 error', 'rank corr.', 'within p90'],
    figureRow('prompt size alone', promptSizeAlone),
    figureRow('step-time law alone', lawAlone),
    figureRow('law and net (Lodestar)', ttft),
  ];
  const gain = promptSizeAlone.medianApe > 0 ? 1 - ttft.medianApe / promptSizeAlone.medianApe : 0;
  const lines = [
    `${n} requests${failed === 0 ? '' : `, ${failed} failed ones left out`}: learned from ${trainedOn} that ended in the first 70 % of the time, tested on the ${testedOn} that arrived later (${leftOut} in flight at the cut: neither)`,
    ...(format === 'counted'
      ? [
          'The log has no arrival times: they are rebuilt from the counts of requests in flight, which adds error of its own.',
        ]
      : []),
    '',
    ...rows.map(([name = '', ...cells]) => name.padEnd(24) + cells.map((cell) => cell.padStart(14)).join('')),
    '',
    `Half of the predictions were off by less than ${percent(ttft.medianApe)}, ${gain >= 0 ? `${percent(gain)} less` : `${percent(-gain)} more`} than a guess by prompt size.`,
    ttft.medianApe <= TRUSTED_APE
      ? `By default Lodestar routes by predictions while this error is at most ${percent(TRUSTED_APE)}: on this history it would.`
      : `By default Lodestar routes by predictions only while this error is at most ${percent(TRUSTED_APE)}: on this history it would keep to its heuristic.`,
  ];
  return lines.join('\n');
}

function figureRow(name: string, { medianApe, p90Ape, spearman, p90Coverage }: Figures): string[] {
  return [
    name,
    percent(medianApe),
    percent(p90Ape),
    spearman === null ? '-' : spearman.toFixed(3),
    percent(p90Coverage),
  ];
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
