import { BrainCore } from '../../../brain/core.ts';
import { newCounters } from '../../../brain/counters.ts';
import type { Trainer } from '../../../brain/train.ts';
import { defaultConfig } from '../../../shared/config/index.ts';
import { type Env, seededRng, silentLog } from '../../../shared/env.ts';
import { FEATURES } from '../../../shared/features.ts';
import type { Sample } from '../../../shared/sample.ts';
import type { Decision } from '../../../agent/entry/decide.ts';
import { SimClock } from '../../../sim/fleet/clock.ts';
import { SimDoor } from '../../../sim/fleet/door.ts';
import { SimEntry } from '../../../sim/fleet/entry.ts';
import { MemoryStore } from '../../../sim/fleet/memory-store.ts';
import { SimHub } from '../../../sim/fleet/network.ts';
import type { Cell } from './cells.ts';

/** A sample and when the brain got it. */
export interface Arrived {
  sample: Sample;
  /** Unix ms */
  arrivedMs: number;
}

const SETTLE_MS = 2_000;
const PATIENCE_MS = 600_000;
const SEED = 5;
/** As the doors of the simulation read their GPUs. */
const GPU_PERIOD_MS = 500;
const GPU_UTIL = FEATURES.indexOf('gpuUtilRatio');
const GPU_MEMORY = FEATURES.indexOf('gpuMemUsedRatio');
const GPU_CLOCK = FEATURES.indexOf('gpuSmClockRatio');

class KeepingStore extends MemoryStore {
  readonly arrived: Arrived[] = [];

  override appendSamples(samples: readonly Sample[] = [], arrivedWallMs = 0): Promise<void> {
    for (const sample of samples) this.arrived.push({ sample, arrivedMs: arrivedWallMs });
    return Promise.resolve();
  }
}

/** Nothing is trained while samples are collected. */
const idleTrainer: Trainer = {
  start: () => Promise.resolve({ name: 'cpu', gpu: false, tried: [], memory: '' }),
  fit: () => Promise.reject(new Error('no round is due')),
  close: () => Promise.resolve(),
};

/**
 * Runs a cell routed by the step-time laws alone, with one entry, and returns its samples in order of arrival with the
 * mean share of time that engines were busy.
 */
export async function collect(cell: Cell): Promise<{ samples: Arrived[]; busyRatio: number }> {
  const clock = new SimClock();
  const store = new KeepingStore();
  const brain = makeBrain(clock, store, cell);
  const { frontEndMs, stepLaw, network } = cell.cluster;
  const doors = cell.cluster.instances.map(
    (spec, i) =>
      new SimDoor(clock, brain.hub, spec, {
        stepLaw,
        frontEndMs,
        seed: SEED * 104_729 + 31 * i,
        tamper: undefined,
        cacheSource: 'shadow',
      }),
  );
  for (const door of doors) door.start();
  const byId = new Map(doors.map((door) => [door.spec.id, door]));
  const entry = new SimEntry('entry', envOf(clock, 2), clock, brain.hub, byId, {
    policy: 'learned',
    objective: 'ttft',
    sloTtftMs: undefined,
    sloTpotMs: undefined,
    hopMs: network.hopMs,
  });
  entry.onDecision = (_request, decision) => {
    showTenant(decision, cell, clock.nowMs() - SETTLE_MS);
    return NaN;
  };
  entry.start();
  brain.run();
  schedule(cell, clock, doors);
  let open = cell.requests.length;
  for (const request of cell.requests)
    clock.after(SETTLE_MS + request.arrivalMs, () => entry.submit(request, () => (open -= 1)));
  await clock.run(SETTLE_MS + (cell.requests.at(-1)?.arrivalMs ?? 0) + PATIENCE_MS, () => open === 0);
  const spanMs = clock.nowMs() - SETTLE_MS;
  const busyMs = doors.reduce((sum, { engine }) => sum + engine.busyMs(clock.nowMs()), 0);
  await brain.stop();
  entry.context.watchdog.close();
  return { samples: store.arrived, busyRatio: busyMs / doors.length / spanMs };
}

function makeBrain(clock: SimClock, store: KeepingStore, cell: Cell): BrainCore<SimHub> {
  const defaults = defaultConfig('token-of-a-simulation').brain;
  const config = {
    ...defaults,
    policy: 'learned' as const,
    learn: { ...defaults.learn, minNewSamples: Number.MAX_SAFE_INTEGER },
  };
  return new BrainCore(config, envOf(clock, 1), {
    counters: newCounters(),
    store,
    trainer: idleTrainer,
    hub: (_welcome, handlers) => new SimHub(clock, cell.cluster.network.brainMs, handlers),
  });
}

function envOf(clock: SimClock, stream: number): Env {
  return { clock, rng: seededRng(SEED * 7919 + stream), log: silentLog };
}

function schedule({ cluster, tenants }: Cell, clock: SimClock, doors: readonly SimDoor[]): void {
  const slow = (instance: number, factor: number) => () =>
    void ((doors[instance] as SimDoor).engine.slowFactor = factor);
  for (const event of cluster.events)
    if (event.kind === 'throttle') clock.after(SETTLE_MS + event.atS * 1000, slow(event.instance, event.factor));
  for (const { instance, fromMs, toMs, factor } of tenants) {
    clock.after(SETTLE_MS + fromMs, slow(instance, factor));
    clock.after(SETTLE_MS + toMs, slow(instance, 1));
  }
}

/**
 * Another tenant does not lower the clocks, as throttling does: it keeps the GPU busy and fills the rest of its memory.
 * Written over what the simulated door read.
 */
function showTenant({ view, row }: Decision, { tenants, cluster }: Cell, nowMs: number): void {
  if (tenants.length === 0) return;
  const readAtMs = Math.floor(nowMs / GPU_PERIOD_MS) * GPU_PERIOD_MS;
  row[GPU_CLOCK] = 1;
  const visit = tenants.find(
    ({ instance, fromMs, toMs }) =>
      cluster.instances[instance]?.id === view.id && readAtMs >= fromMs && readAtMs < toMs,
  );
  if (!visit) return;
  row[GPU_UTIL] = 1;
  row[GPU_MEMORY] = 0.98;
}
