import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { showProgress } from '../../cli/sim-output.ts';
import { fixed, percent, table } from '../../cli/sim-report.ts';
import { CACHE_SOURCES, type CacheSourceName } from '../../sim/fleet/cache-source.ts';
import { runCapacities, runRuns } from '../../sim/fleet/jobs.ts';
import { bundledMatrix, type Capacity, type Cell, readMatrix } from '../../sim/fleet/matrix.ts';
import type { RunResult } from '../../sim/fleet/result.ts';

/**
 * `npm run bench:cache-view-sim [-- --cells … --jobs N]`: what the doors' view of their caches is worth to `learned`,
 * in cells of the published matrix where prompts are shared and caches small.
 */
const CELLS = '8,13,14,15,25,40';

const { values } = parseArgs({
  options: {
    cells: { type: 'string', default: CELLS },
    jobs: { type: 'string', default: String(Math.min(4, availableParallelism())) },
  },
});
const threads = Math.max(1, Math.floor(Number(values.jobs)) || 1);
const matrix = readMatrix(bundledMatrix);
const cells = matrix.select(values.cells);
const capacities = await runCapacities(
  cells.map((cell) => matrix.capacityJob(cell)),
  { threads },
);
const jobs = cells.flatMap((cell, at) =>
  CACHE_SOURCES.map((cacheSource) => ({
    ...matrix.runJob(cell, capacities[at] as Capacity, { policy: 'learned', seed: 1, objective: 'ttft' }),
    cacheSource,
  })),
);
const done = await runRuns(jobs, { threads, onDone: showProgress });
if (process.stderr.isTTY) process.stderr.write('\r\u001b[K');
const rows = cells.flatMap((cell, at) =>
  rowsOf(
    cell,
    done.slice(at * CACHE_SOURCES.length, (at + 1) * CACHE_SOURCES.length).map(({ result }) => result),
  ),
);
console.log(
  table([['cell', 'view', 'TTFT mean ms', 'of shadow', 'hit', 'door within a block', 'entry within a block'], ...rows]),
);

function rowsOf(cell: Cell, results: readonly RunResult[]): string[][] {
  const meanOf = (source: CacheSourceName): number => results[CACHE_SOURCES.indexOf(source)]?.ttftMs.mean ?? NaN;
  return results.map(({ ttftMs, kvHitRatio, cachePredicted }, at) => [
    at === 0 ? `${cell.number} ${cell.name}` : '',
    CACHE_SOURCES[at] as string,
    fixed(ttftMs.mean, 1),
    fixed((ttftMs.mean ?? NaN) / meanOf('shadow'), 3),
    percent(kvHitRatio),
    percent(cachePredicted.door),
    percent(cachePredicted.entry),
  ]);
}
