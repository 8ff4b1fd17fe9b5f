import { seededRng } from '../../shared/env.ts';
import { quantile } from '../../shared/quantile.ts';
import type { Cell } from './matrix.ts';
import { mean, type RunResult } from './result.ts';

/** The runs of one cell: every policy with every seed. */
export interface CellRuns {
  cell: Cell;
  runs: readonly RunResult[];
}

/** How many times better than a baseline, over cells: baseline / own, above 1 is better. */
export interface Ratio {
  cells: number;
  geomean: number;
  /** 95 % interval of the geometric mean: cells drawn anew 2,000 times */
  ci95: [low: number, high: number];
  min: number;
  minCell: string;
  /** of cells with a ratio of at least 1 */
  shareAtLeast1: number;
}

/** One policy against a baseline. */
export interface Versus {
  ttftMean: Ratio;
  ttftP99: Ratio;
  e2eMean: Ratio;
  /** of requests that arrived after the warm-up; null where no cell lasted that long */
  ttftMeanAfterWarmup: Ratio | null;
}

export interface MatrixSummary {
  /**
   * every policy against `prefix-load`, against the best of all baselines in each cell (itself left out), and against
   * `lodestar-paper`; null where that did not run
   */
  policies: Record<string, { prefixLoad: Versus | null; best: Versus | null; paper: Versus | null }>;
  /** the best baseline of each cell by mean TTFT, and `learned` against it */
  bestOfCell: {
    number: number;
    cell: string;
    best: string;
    bestMs: number;
    learnedMs: number | null;
    versusBest: number | null;
    versusPrefixLoad: number | null;
  }[];
  /** `learned` by the values of each axis */
  byAxis: Record<
    'cluster' | 'trace' | 'load' | 'entries',
    Record<string, { cells: number; prefixLoad: Ratio | null; best: Ratio | null }>
  >;
  /** cells that differ in entries only: gain over prefix-load with the most entries / with the fewest */
  gainKept: { cells: string[]; geomean: number } | null;
}

type Figure = (run: RunResult) => number | null;
type Baseline = (runs: readonly RunResult[]) => string | undefined;

const DRAWS = 2000;
/** A baseline that loses this share of requests more than others is not the best, however fast the rest was. */
const MAX_LOST = 0.01;
const AXES = ['cluster', 'trace', 'load', 'entries'] as const;

const ttftMean: Figure = (run) => run.ttftMs.mean;

/** Sums a matrix up; ratios of a cell are geometric means over its paired seeds. */
export function summarizeMatrix(cells: readonly CellRuns[]): MatrixSummary {
  const names = [...new Set(cells.flatMap(({ runs }) => runs.map((run) => run.policy)))];
  const fixed = (policy: string, baseline: string): Versus | null =>
    policy === baseline ? null : versus(cells, policy, () => baseline);
  return {
    policies: Object.fromEntries(
      names.map((name) => [
        name,
        {
          prefixLoad: fixed(name, 'prefix-load'),
          best: versus(cells, name, bestBut(name)),
          paper: fixed(name, 'lodestar-paper'),
        },
      ]),
    ),
    bestOfCell: cells.flatMap(bestOf),
    byAxis: Object.fromEntries(AXES.map((axis) => [axis, byAxis(cells, axis)])) as MatrixSummary['byAxis'],
    gainKept: gainKept(cells),
  };
}

/** The baseline with the least mean TTFT among a cell's runs. Neither `learned` nor `oracle` is a baseline. */
export function bestBut(policy: string): Baseline {
  return (runs) => {
    const baselines = [...new Set(runs.map((run) => run.policy))].filter(
      (name) => name !== policy && name !== 'learned' && name !== 'oracle',
    );
    const lost = (name: string): number => over(runs, name, (run) => run.failed / run.requests);
    const leastLost = Math.min(...baselines.map(lost));
    const sound = baselines.filter((name) => lost(name) <= leastLost + MAX_LOST);
    return sound.toSorted((a, b) => over(runs, a, ttftMean) - over(runs, b, ttftMean))[0];
  };
}

/** Baseline / policy in one cell; null where one of them did not run or saw nothing. */
function ratioOf(runs: readonly RunResult[], policy: string, baseline: string, figure: Figure): number | null {
  const logs = runs
    .filter((run) => run.policy === policy)
    .map((own) => {
      const other = runs.find((run) => run.policy === baseline && run.seed === own.seed);
      return Math.log((other ? (figure(other) ?? NaN) : NaN) / (figure(own) ?? NaN));
    });
  const centre = mean(logs);
  return centre === null ? null : Math.exp(centre);
}

function versus(cells: readonly CellRuns[], policy: string, baseline: Baseline): Versus | null {
  const of = (figure: Figure): Ratio | null => ratioOver(cells, policy, baseline, figure);
  const [first, p99, e2eMean] = [of(ttftMean), of((run) => run.ttftMs.p99), of((run) => run.e2eMs.mean)];
  if (!first || !p99 || !e2eMean) return null;
  return { ttftMean: first, ttftP99: p99, e2eMean, ttftMeanAfterWarmup: of((run) => run.afterWarmup.ttftMs.mean) };
}

function ratioOver(cells: readonly CellRuns[], policy: string, baseline: Baseline, figure: Figure): Ratio | null {
  const ratios = cells.flatMap(({ cell, runs }) => {
    const other = baseline(runs);
    const ratio = other === undefined ? null : ratioOf(runs, policy, other, figure);
    return ratio === null ? [] : [{ cell: cell.name, ratio }];
  });
  const worst = ratios.toSorted((a, b) => a.ratio - b.ratio)[0];
  if (!worst) return null;
  const logs = ratios.map(({ ratio }) => Math.log(ratio));
  return {
    cells: ratios.length,
    geomean: geomean(logs),
    ci95: bootstrap(logs),
    min: worst.ratio,
    minCell: worst.cell,
    shareAtLeast1: ratios.filter(({ ratio }) => ratio >= 1).length / ratios.length,
  };
}

function bootstrap(logs: readonly number[]): [number, number] {
  const rng = seededRng(1);
  const draw = (): number => logs[Math.floor(rng() * logs.length)] as number;
  const means = Float64Array.from({ length: DRAWS }, () => geomean(Array.from(logs, draw))).toSorted();
  return [quantile(means, 0.025), quantile(means, 0.975)];
}

/** Geometric mean of values given as their logarithms. */
export function geomean(logs: readonly number[]): number {
  return Math.exp(logs.reduce((sum, log) => sum + log, 0) / logs.length);
}

function bestOf({ cell, runs }: CellRuns): MatrixSummary['bestOfCell'] {
  const best = bestBut('learned')(runs);
  if (best === undefined) return [];
  const learnedMs = over(runs, 'learned', ttftMean);
  return [
    {
      number: cell.number,
      cell: cell.name,
      best,
      bestMs: over(runs, best, ttftMean),
      learnedMs: Number.isNaN(learnedMs) ? null : learnedMs,
      versusBest: ratioOf(runs, 'learned', best, ttftMean),
      versusPrefixLoad: ratioOf(runs, 'learned', 'prefix-load', ttftMean),
    },
  ];
}

function byAxis(cells: readonly CellRuns[], axis: (typeof AXES)[number]): MatrixSummary['byAxis']['cluster'] {
  const values = [...new Set(cells.map(({ cell }) => cell[axis]))].toSorted((a, b) => Number(a) - Number(b) || 0);
  return Object.fromEntries(
    values.map((value) => {
      const own = cells.filter(({ cell }) => cell[axis] === value);
      const prefixLoad = ratioOver(own, 'learned', () => 'prefix-load', ttftMean);
      return [
        String(value),
        { cells: own.length, prefixLoad, best: ratioOver(own, 'learned', bestBut('learned'), ttftMean) },
      ];
    }),
  );
}

function gainKept(cells: readonly CellRuns[]): MatrixSummary['gainKept'] {
  const kept: { cell: string; log: number }[] = [];
  for (const { cell, runs } of cells) {
    const alike = cells.filter(
      (other) =>
        other.cell.cluster === cell.cluster && other.cell.trace === cell.trace && other.cell.load === cell.load,
    );
    const fewest = alike.toSorted((a, b) => a.cell.entries - b.cell.entries)[0];
    const most = Math.max(...alike.map((other) => other.cell.entries));
    if (!fewest || fewest.cell.entries === cell.entries || cell.entries !== most) continue;
    const many = ratioOf(runs, 'learned', 'prefix-load', ttftMean);
    const few = ratioOf(fewest.runs, 'learned', 'prefix-load', ttftMean);
    if (many !== null && few !== null) kept.push({ cell: cell.name, log: Math.log(many / few) });
  }
  return kept.length === 0
    ? null
    : { cells: kept.map(({ cell }) => cell), geomean: geomean(kept.map(({ log }) => log)) };
}

/** Mean of a figure over a policy's seeds; NaN where it did not run. */
function over(runs: readonly RunResult[], policy: string, figure: Figure): number {
  return mean(runs.filter((run) => run.policy === policy).map((run) => figure(run) ?? NaN)) ?? NaN;
}
