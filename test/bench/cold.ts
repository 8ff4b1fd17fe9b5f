import { parseArgs } from 'node:util';
import { capacityOf } from '../../sim/fleet/capacity.ts';
import type { Cluster } from '../../sim/fleet/cluster.ts';
import type { ClientOutcome } from '../../sim/fleet/entry.ts';
import { geomean } from '../../sim/fleet/matrix-summary.ts';
import { bundledMatrix, type Cell, readMatrix } from '../../sim/fleet/matrix.ts';
import type { SimRequest } from '../../sim/fleet/plan.ts';
import { runPolicy } from '../../sim/fleet/run.ts';
import { makeScenario } from '../../sim/fleet/scenario.ts';

/**
 * `npm run bench:cold [-- --cells 1,9,… --seeds 1,2,3]`: how a fleet that has learned nothing compares, request by
 * request, with one that has seen the same traffic before (caches emptied in between), and with prefix-load: over the
 * first 30 s or 150 requests, whichever is longer, and over what comes after.
 */
const { values } = parseArgs({
  options: { cells: { type: 'string', default: '1,11,12,21,23,31' }, seeds: { type: 'string', default: '1,2,3' } },
});
const COLD_MS = 30_000;
const COLD_REQUESTS = 150;
/** Between the two passes every request ends, and caches are emptied. */
const PAUSE_MS = 120_000;

interface Halves {
  first: number;
  later: number;
}

const matrix = readMatrix(bundledMatrix);
console.log('mean TTFT in ms, first 30 s or 150 requests / later; cold and converged: `learned`\n');
const ratios: { cold: number; heuristic: number }[] = [];
for (const cell of matrix.select(values.cells)) {
  const row = await measure(cell);
  ratios.push({ cold: row.cold.later / row.warm.later, heuristic: row.prefixLoad.first / row.cold.first });
  const text = (halves: Halves): string =>
    `${halves.first.toFixed(0).padStart(5)} / ${halves.later.toFixed(0).padStart(5)}`;
  console.log(
    `${`${cell.number} ${cell.name}`.padEnd(40)} cold ${text(row.cold)}   converged ${text(row.warm)}   prefix-load ${text(row.prefixLoad)}   ` +
      `later: cold / converged ${(row.cold.later / row.warm.later).toFixed(3)}; first: prefix-load / cold ${(row.prefixLoad.first / row.cold.first).toFixed(2)}`,
  );
}
console.log(
  `\nlater, cold / converged: ${geomean(ratios.map((one) => Math.log(one.cold))).toFixed(3)}, at most ${Math.max(...ratios.map((one) => one.cold)).toFixed(3)} (target <= 1.05)`,
);
console.log(
  `first, prefix-load / cold: ${geomean(ratios.map((one) => Math.log(one.heuristic))).toFixed(2)}, at least ${Math.min(...ratios.map((one) => one.heuristic)).toFixed(2)} (target >= 0.95)`,
);

async function measure(cell: Cell): Promise<{ cold: Halves; warm: Halves; prefixLoad: Halves }> {
  const sums = { cold: { first: 0, later: 0 }, warm: { first: 0, later: 0 }, prefixLoad: { first: 0, later: 0 } };
  const seeds = values.seeds.split(',').map(Number);
  const { cluster: calm, trace: unpaced } = matrix.capacityJob(cell);
  const { requests: all } = makeScenario(unpaced, calm, 1);
  const capacity = { kind: 'capacity' as const, capacityRps: await capacityOf(calm, all, 1), requests: all.length };
  for (const seed of seeds) {
    const { cluster, trace } = matrix.runJob(cell, capacity, { policy: 'learned', seed, objective: 'ttft' });
    const plain = { ...cluster, events: [] };
    const { requests } = makeScenario(trace, plain, seed);
    const run = async (
      policy: 'learned' | 'prefix-load',
      of: Cluster,
      sent: readonly SimRequest[],
    ): Promise<ClientOutcome[]> =>
      (
        await runPolicy({
          cluster: of,
          requests: sent,
          policy,
          objective: 'ttft',
          sloTtftMs: undefined,
          sloTpotMs: undefined,
          entries: cell.entries,
          seed,
        })
      ).outcomes;
    add(sums.cold, await run('learned', plain, requests), 0, seeds.length);
    add(sums.prefixLoad, await run('prefix-load', plain, requests), 0, seeds.length);
    const offsetMs = (requests.at(-1)?.arrivalMs ?? 0) + PAUSE_MS;
    const again = requests.map((request) => ({ ...request, arrivalMs: request.arrivalMs + offsetMs }));
    const events = plain.instances.map((_, instance) => ({
      atS: offsetMs / 1000 - 1,
      kind: 'clear-cache' as const,
      instance,
    }));
    const both = await run('learned', { ...plain, events }, [...requests, ...again]);
    add(
      sums.warm,
      both.filter((one) => one.request.arrivalMs >= offsetMs),
      offsetMs,
      seeds.length,
    );
  }
  return sums;
}

/** Adds a run's mean TTFTs, one of `runs`. */
function add(sums: Halves, outcomes: readonly ClientOutcome[], fromMs: number, runs: number): void {
  const isFirst = ({ request }: ClientOutcome): boolean =>
    request.arrivalMs - fromMs < COLD_MS || request.index < COLD_REQUESTS;
  const mean = (of: readonly ClientOutcome[]): number => of.reduce((sum, one) => sum + one.ttftMs, 0) / of.length;
  const done = outcomes.filter((one) => one.ok);
  sums.first += mean(done.filter(isFirst)) / runs;
  sums.later += mean(done.filter((one) => !isFirst(one))) / runs;
}
