import type { LoadProgress, LoadResult, Summary } from '../sim/workloads/index.ts';

const BAR_WIDTH = 30;

/** One line on the state of a run: bar, counts, time. */
export function progressLine(progress: LoadProgress): string {
  const ended = progress.succeeded + progress.failed;
  const filled = progress.planned === 0 ? BAR_WIDTH : Math.round((BAR_WIDTH * ended) / progress.planned);
  const bar = '█'.repeat(filled) + '░'.repeat(BAR_WIDTH - filled);
  const failed = progress.failed === 0 ? '' : `, ${progress.failed} failed`;
  return `${bar} ${ended}/${progress.planned} done, ${progress.inFlight} in flight${failed}, ${(progress.elapsedMs / 1000).toFixed(0)} s`;
}

/** The result of a run as text for people. */
export function resultText(result: LoadResult): string {
  const rows = [
    ['', 'mean', 'p50', 'p90', 'p99', 'max'],
    latencyRow('TTFT ms', result.ttftMs),
    latencyRow('TPOT ms', result.tpotMs),
    latencyRow('E2E ms', result.e2eMs),
    latencyRow('sent late ms', result.lateMs),
  ];
  const hits = result.kvHitRatio === undefined ? 'not reported' : `${(100 * result.kvHitRatio).toFixed(1)} %`;
  const lines = [
    `${result.sent} sent, ${result.succeeded} succeeded, ${result.failed} failed${result.aborted > 0 ? `, ${result.aborted} stopped` : ''} in ${(result.durationMs / 1000).toFixed(1)} s`,
    `offered ${result.offeredRate.toFixed(2)}/s, achieved ${result.achievedRate.toFixed(2)}/s, ${result.outputTokensPerSecond.toFixed(0)} output tokens/s`,
    `${result.promptTokens} prompt tokens, cached: ${hits}; ${result.completionTokens} output tokens`,
    '',
    ...rows.map(([name = '', ...cells]) => name.padEnd(14) + cells.map((cell) => cell.padStart(10)).join('')),
  ];
  for (const [kind, count] of Object.entries(result.failures))
    lines.push(`failed by ${kind}: ${count}, for example: ${result.examples[kind] ?? ''}`);
  return lines.join('\n');
}

function latencyRow(name: string, summary: Summary): string[] {
  return [
    name,
    ...[summary.mean, summary.p50, summary.p90, summary.p99, summary.max].map((value) =>
      value === undefined ? '-' : value.toFixed(1),
    ),
  ];
}
