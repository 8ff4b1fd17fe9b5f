import { loadBackend, type Tf } from '../../brain/predictor/backend.ts';
import type { LearnerOptions } from '../../brain/learn.ts';
import { cells } from './features/cells.ts';
import { type Arrived, collect } from './features/collect.ts';
import type { Errors } from './features/errors.ts';
import { columnsOf, type GroupName, GROUPS } from './features/groups.ts';
import { netErrors, priorErrors, split } from './features/past-future.ts';
import { progress } from './features/progressive.ts';

// `npm run bench:features [past-future | progressive]`: what each piece of the learner is worth, on samples of
// simulated fleets. docs/decisions/0008-features-and-learner.md reads the tables.

const HIDDEN = [32, 32];
/** What is tried instead of the learner's defaults. */
const VARIANTS: Record<string, Partial<LearnerOptions>> = {
  'prior alone': { minNewSamples: Number.MAX_SAFE_INTEGER },
  learner: {},
  'newest 1,024, diverse': { recencySize: 1024 },
  'newest 1,024 alone': { recencySize: 1024, diversitySize: 0 },
  'forgets after 2 min': { maxAgeMs: 120_000 },
  'net 16-16': { hidden: [16, 16] },
  'net 64-64': { hidden: [64, 64] },
};

const studies: Record<string, (tf: Tf, name: string, samples: readonly Arrived[]) => void | Promise<void>> = {
  'past-future': pastFuture,
  progressive,
};
const asked = process.argv.slice(2);
const unknown = asked.filter((name) => !(name in studies));
if (unknown.length > 0) {
  console.error(`unknown study ${unknown.join(', ')}; there are ${Object.keys(studies).join(', ')}`);
  process.exit(1);
}
const backend = await loadBackend({ backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 });
for (const cell of cells()) {
  const { samples } = await collect(cell);
  for (const name of asked.length > 0 ? asked : Object.keys(studies))
    await studies[name]?.(backend.tf, cell.name, samples);
}

/**
 * One net trained on the first 60 % of the time and tested on the rest, with each group of features left out in turn.
 */
function pastFuture(tf: Tf, name: string, samples: readonly Arrived[]): void {
  const parts = split(samples);
  console.log(`\n${name}: trained on ${parts.past.length}, tested on ${parts.future.length}`);
  printHead();
  printLine('prior alone', priorErrors(parts));
  printLine('all features', netErrors(tf, parts, HIDDEN, []));
  for (const group of Object.keys(GROUPS) as GroupName[])
    printLine(`without ${group}`, netErrors(tf, parts, HIDDEN, columnsOf(group)));
}

/** The learner from cold, predicting each request before it is dispatched. */
async function progressive(tf: Tf, name: string, samples: readonly Arrived[]): Promise<void> {
  console.log(`\n${name}: from cold, ${samples.length} requests`);
  printHead('   rounds accepted dropped   cpu s');
  for (const [variant, changes] of Object.entries(VARIANTS)) {
    const result = await progress(tf, samples, changes);
    const { rounds, accepted, dropped, cpuS } = result;
    printLine(
      variant,
      result,
      `${String(rounds).padStart(9)}${String(accepted).padStart(9)}${String(dropped).padStart(8)}${cpuS.toFixed(1).padStart(8)}`,
    );
  }
}

function printHead(more = ''): void {
  console.log(
    `${''.padEnd(26)}${'TTFT: median p90 |log| cover'.padStart(34)}${'TPOT: median p90 |log| cover'.padStart(34)}${more}`,
  );
}

function printLine(name: string, { ttft, tpot }: { ttft: Errors; tpot: Errors }, more = ''): void {
  console.log(`${name.padEnd(26)}${columns(ttft)}${columns(tpot)}${more}`);
}

function columns({ medianApe, p90Ape, logError, p90Coverage }: Errors): string {
  return [medianApe, p90Ape, logError, p90Coverage]
    .map((value) => value.toFixed(3).padStart(8))
    .join('')
    .padStart(34);
}
