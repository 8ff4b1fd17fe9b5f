import { parseArgs } from 'node:util';
import { percent, table } from '../../cli/sim-report.ts';
import { ENGINE_BLOCK_TOKENS } from '../../sim/fleet/plan.ts';
import { DoorRecord, type DoorRow, REASONS } from './view/door-record.ts';
import { measureFaults } from './view/faults.ts';
import { viewLoads } from './view/loads.ts';
import { BLOCKS, ViewRig } from './view/rig.ts';

/** A row, and what its entry believed. */
interface Row extends DoorRow {
  entryHitTokens: number | undefined;
}

const HEADER = [
  'load',
  'view',
  'part',
  'requests',
  'hit',
  'door',
  'entry',
  'told less',
  'told more',
  ...REASONS,
] as const;
const TARGETS = { events: 0.97, shadow: 0.92 } as const;

/**
 * `npm run bench:cache-view [-- --views events,shadow --loads NAME,… --no-faults]`: a real vLLM with a small, full
 * cache under several loads, with KV events and without. How often the door, when it sent a request on, and the entry,
 * when it chose, told the cached tokens that vLLM then reported to within one block; and why not. Then the links of the
 * events are cut for 10 s, and vLLM is killed. About fifteen minutes.
 */
async function main(views: readonly string[], only: readonly string[], withFaults: boolean): Promise<void> {
  const rows: string[][] = [];
  const faults: string[] = [];
  for (const view of ['events', 'shadow'] as const) {
    if (!views.includes(view)) continue;
    const rig = await ViewRig.start(view === 'events');
    try {
      const record = new DoorRecord(rig.door);
      for (const load of viewLoads()) {
        if (only.length > 0 && !only.includes(load.name)) continue;
        console.error(`${load.name}, ${view} …`);
        record.rows = [];
        await load.run(rig.send);
        const entry = await rig.entryHits();
        rows.push(
          ...linesOf(
            load.name,
            view,
            record.rows.map((row) => ({ ...row, entryHitTokens: entry.get(row.path) })),
          ),
        );
        console.log(table([[...HEADER], ...rows.slice(-2)]));
      }
      if (view === 'events' && withFaults) faults.push(...(await measureFaults(rig)));
    } finally {
      await rig.stop();
    }
  }
  console.log(
    `\nCached tokens told to within one block of ${ENGINE_BLOCK_TOKENS}, real vLLM with ${BLOCKS} blocks; requests outside at the door by direction and reason. Targets: ${percent(TARGETS.events)} with events, ${percent(TARGETS.shadow)} without`,
  );
  console.log(table([[...HEADER], ...rows]));
  for (const line of faults) console.log(line);
}

function linesOf(load: string, view: 'events' | 'shadow', rows: readonly Row[]): string[][] {
  const line = (part: string, some: readonly Row[]): string[] => {
    const outside = some.filter((row) => !isWithin(row.doorHitTokens, row));
    const told = some.filter((row) => row.entryHitTokens !== undefined);
    const sum = (of: (row: Row) => number): number => some.reduce((total, row) => total + of(row), 0);
    return [
      load,
      view,
      part,
      String(some.length),
      percent(sum((row) => row.cachedTokens) / sum((row) => row.promptTokens)),
      percent(1 - outside.length / some.length),
      percent(told.filter((row) => isWithin(row.entryHitTokens as number, row)).length / told.length),
      String(outside.filter((row) => row.doorHitTokens < row.cachedTokens).length),
      String(outside.filter((row) => row.doorHitTokens > row.cachedTokens).length),
      ...REASONS.map((reason) => String(outside.filter((row) => row.reason === reason).length)),
    ];
  };
  return [line('all', rows), line('second half', rows.slice(rows.length / 2))];
}

function isWithin(hitTokens: number, { cachedTokens }: Row): boolean {
  return Math.abs(hitTokens - cachedTokens) <= ENGINE_BLOCK_TOKENS;
}

const { values } = parseArgs({
  options: {
    views: { type: 'string', default: 'events,shadow' },
    loads: { type: 'string', default: '' },
    'no-faults': { type: 'boolean', default: false },
  },
});
await main(
  values.views.split(','),
  values.loads.split(',').filter((name) => name !== ''),
  !values['no-faults'],
);
