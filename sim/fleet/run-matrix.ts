import type { ObjectiveName } from '../../shared/choice/objectives/index.ts';
import { runCapacities, runRuns } from './jobs.ts';
import type { Capacity, Cell, Matrix } from './matrix.ts';
import { type MatrixSummary, summarizeMatrix } from './matrix-summary.ts';
import type { RunResult } from './result.ts';
import type { SimPolicy } from './run.ts';
import type { Dropped } from './scenario.ts';
import { type PolicySummary, summarizeRuns } from './summary.ts';

export interface MatrixOptions {
  cells: readonly Cell[];
  policies: readonly SimPolicy[];
  seeds: readonly number[];
  objective: ObjectiveName;
  threads: number;
  onDone?: (ended: number, total: number) => void;
}

export interface CellResult {
  cell: Cell;
  capacityRps: number;
  offeredRps: number;
  dropped: Dropped;
  runs: RunResult[];
  summary: Record<string, PolicySummary>;
}

export interface MatrixResult {
  /** by `cluster/trace` */
  capacities: Record<string, Capacity>;
  cells: CellResult[];
  summary: MatrixSummary;
}

/** Measures each capacity once, then runs every policy with every seed in every cell. */
export async function runMatrix(matrix: Matrix, options: MatrixOptions): Promise<MatrixResult> {
  const { cells, policies, seeds, objective, threads, onDone } = options;
  const pairs = new Map(cells.map((cell) => [pairOf(cell), matrix.capacityJob(cell)]));
  const runsPerCell = policies.length * seeds.length;
  const total = pairs.size + cells.length * runsPerCell;
  const measured = await runCapacities([...pairs.values()], { threads, onDone: (ended) => onDone?.(ended, total) });
  const capacities = Object.fromEntries([...pairs.keys()].map((pair, at) => [pair, measured[at] as Capacity]));
  const capacity = (cell: Cell): Capacity => capacities[pairOf(cell)] as Capacity;
  const jobs = cells.flatMap((cell) =>
    seeds.flatMap((seed) => policies.map((policy) => matrix.runJob(cell, capacity(cell), { policy, seed, objective }))),
  );
  const done = await runRuns(jobs, { threads, onDone: (ended) => onDone?.(pairs.size + ended, total) });
  const results = cells.map((cell, at): CellResult => {
    const own = done.slice(at * runsPerCell, (at + 1) * runsPerCell);
    const runs = own.map(({ result }) => result);
    const { offeredRps, dropped } = own[0]!;
    return { cell, capacityRps: capacity(cell).capacityRps, offeredRps, dropped, runs, summary: summarizeRuns(runs) };
  });
  return {
    capacities: Object.fromEntries(
      Object.entries(capacities).map(([pair, { capacityRps, requests }]) => [pair, { capacityRps, requests }]),
    ),
    cells: results,
    summary: summarizeMatrix(results),
  };
}

function pairOf({ cluster, trace }: Cell): string {
  return `${cluster}/${trace}`;
}
