import { findGpu, loadGpus } from '../../sim/engine/gpus.ts';
import type { ClusterEvent } from '../../sim/fleet/cluster.ts';
import type { ClientOutcome } from '../../sim/fleet/entry.ts';
import type { SimPolicy } from '../../sim/fleet/run.ts';
import type { Tamper } from '../../sim/fleet/tamper.ts';
import { type DriftFleet, mean, requestsOf, runDrift, shareBetween, ttftsBetween } from '../helpers/drift.ts';
import { absurdReports, lyingEntry, permutedLabels, poisonedSamples } from '../helpers/falsify.ts';

/**
 * `npm run bench:drift [-- NAME … --seeds N]`: what becomes of the TTFT when the fleet drifts or is lied to, in windows
 * of 10 s.
 */
const EVENT_S = 60;
const RECOVERY_S = 110;
const END_S = 150;
const WINDOW_S = 10;
const FROM_S = EVENT_S - 20;
/** Highest share of TTFTs left out of the trimmed mean: one request behind a stall weighs as much as fifty others. */
const TRIMMED = 0.02;

interface Scenario {
  title: string;
  fleet: DriftFleet;
  events?: ClusterEvent[];
  tamper?: () => Tamper;
  /** runs beside it: the same fleet in the new state from the first request on */
  known?: { gpus?: string[]; events?: ClusterEvent[] };
}

const MIXED: DriftFleet = {
  gpus: ['A30', 'A30', 'L20', 'A100'],
  kind: 'shared-prompts',
  rate: 10,
  seconds: END_S,
  entries: 2,
};
const SAME: DriftFleet = {
  gpus: ['A30', 'A30', 'A30', 'A30'],
  kind: 'shared-prompts',
  rate: 6,
  seconds: END_S,
  entries: 2,
};
const V100 = findGpu(loadGpus(), 'V100');

/** Three times slower from the event on, and back to full speed later. */
function throttled(instance: number): Pick<Scenario, 'events' | 'known'> {
  const back: ClusterEvent = { atS: RECOVERY_S, kind: 'throttle', instance, factor: 1 };
  return {
    events: [{ atS: EVENT_S, kind: 'throttle', instance, factor: 3 }, back],
    known: { events: [{ atS: 0, kind: 'throttle', instance, factor: 3 }, back] },
  };
}

const scenarios: Record<string, Scenario> = {
  'throttle-same': { title: 'one of 4 A30 three times slower from 60 s to 110 s', fleet: SAME, ...throttled(0) },
  'throttle-mixed': {
    title: 'the A100 of A30 + A30 + L20 + A100 three times slower from 60 s to 110 s',
    fleet: MIXED,
    ...throttled(3),
  },
  swap: {
    title: 'the A100 of A30 + A30 + L20 + A100 becomes a V100 at 60 s',
    fleet: MIXED,
    events: [{ atS: EVENT_S, kind: 'swap', instance: 3, gpu: V100 }],
    known: { gpus: ['A30', 'A30', 'L20', 'V100'] },
  },
  'poisoned-samples': {
    title: 'from 60 s one entry of two sends NaN, 0, infinite and absurd outcomes',
    fleet: MIXED,
    tamper: () => poisonedSamples('entry-0', EVENT_S * 1000),
  },
  'absurd-laws': {
    title: 'from 60 s the door of an A30 reports absurd laws',
    fleet: MIXED,
    tamper: () => absurdReports('i0', EVENT_S * 1000),
  },
  'too-high': {
    title: 'from 60 s one entry of two claims ten times its TTFTs',
    fleet: MIXED,
    tamper: () => lyingEntry('entry-0', 10, EVENT_S * 1000),
  },
  'too-low': {
    title: 'from 60 s one entry of two claims a tenth of its TTFTs',
    fleet: MIXED,
    tamper: () => lyingEntry('entry-0', 0.1, EVENT_S * 1000),
  },
  permuted: {
    title: 'from the start one entry of two permutes its outcomes',
    fleet: MIXED,
    tamper: () => permutedLabels('entry-0', 0),
  },
};

interface Row {
  name: string;
  outcomes: ClientOutcome[][];
}

async function measure(scenario: Scenario, seeds: readonly number[]): Promise<Row[]> {
  const { fleet, events = [], tamper, known } = scenario;
  const rows: Row[] = [];
  const run = async (
    name: string,
    policy: SimPolicy,
    changed: { gpus?: readonly string[]; events?: readonly ClusterEvent[] },
    isTampered: boolean,
  ): Promise<void> => {
    const row: Row = { name, outcomes: [] };
    rows.push(row);
    for (const seed of seeds) {
      const requests = requestsOf(fleet, seed);
      const how = { policy, seed, events: changed.events ?? [], ...(isTampered && tamper ? { tamper: tamper() } : {}) };
      row.outcomes.push((await runDrift({ ...fleet, gpus: changed.gpus ?? fleet.gpus }, requests, how)).outcomes);
    }
  };
  await run('learned', 'learned', { events }, true);
  if (known) await run('learned, known all along', 'learned', known, false);
  await run('learned, nothing happens', 'learned', {}, false);
  await run('lmetric', 'lmetric', { events }, true);
  await run('prefix-load', 'prefix-load', { events }, true);
  return rows;
}

function trimmedMean(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  return mean(sorted.slice(0, Math.max(1, Math.ceil(sorted.length * (1 - TRIMMED)))));
}

function print({ title }: Scenario, rows: readonly Row[], seeds: number): void {
  const starts: number[] = [];
  for (let at = FROM_S; at < END_S; at += WINDOW_S) starts.push(at);
  console.log(`\n${title}; mean TTFT in ms without the highest 2 %, by time of arrival, ${seeds} seeds`);
  console.log(['from s'.padEnd(26), ...starts.map((at) => String(at).padStart(6))].join(''));
  for (const { name, outcomes } of rows) {
    const cells = starts.map((at) =>
      trimmedMean(outcomes.flatMap((one) => ttftsBetween(one, at, at + WINDOW_S)))
        .toFixed(0)
        .padStart(6),
    );
    console.log([name.padEnd(26), ...cells].join(''));
  }
  const learned = rows[0] as Row;
  const fallback = starts.map((at) =>
    mean(learned.outcomes.map((one) => shareBetween(one, at, at + WINDOW_S, ({ policy }) => policy !== 'learned'))),
  );
  console.log(
    ['decided by the fallback, %'.padEnd(26), ...fallback.map((share) => (100 * share).toFixed(0).padStart(6))].join(
      '',
    ),
  );
  const error = starts.map((at) =>
    median(
      learned.outcomes.flatMap((one) =>
        one
          .filter(
            ({ ok, request }) => ok && request.arrivalMs >= at * 1000 && request.arrivalMs < (at + WINDOW_S) * 1000,
          )
          .map(({ predictedTtftMs, ttftMs }) => Math.abs(predictedTtftMs - ttftMs) / ttftMs),
      ),
    ),
  );
  console.log(['median error, %'.padEnd(26), ...error.map((one) => (100 * one).toFixed(0).padStart(6))].join(''));
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? NaN;
}

const args = process.argv.slice(2);
const at = args.indexOf('--seeds');
const count = at < 0 ? 4 : Number(args.splice(at, 2)[1]);
const seeds = Array.from({ length: count }, (_, i) => i + 1);
const unknown = args.filter((name) => !(name in scenarios));
if (unknown.length > 0 || !(count >= 1)) {
  console.error(`unknown: ${unknown.join(', ') || 'number of seeds'}; there are ${Object.keys(scenarios).join(', ')}`);
  process.exit(1);
}
for (const name of args.length > 0 ? args : Object.keys(scenarios)) {
  const scenario = scenarios[name] as Scenario;
  print(scenario, await measure(scenario, seeds), count);
}
