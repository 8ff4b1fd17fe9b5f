import type { ObjectiveName } from '../../shared/choice/objectives/index.ts';
import type { CacheSourceName } from './cache-source.ts';
import { capacityOf } from './capacity.ts';
import type { Cluster } from './cluster.ts';
import { type RunPlots, runPlots } from './plots.ts';
import { type RunResult, runResult } from './result.ts';
import { runPolicy, type SimPolicy } from './run.ts';
import { type Dropped, makeScenario, type Scenario, type TraceSpec } from './scenario.ts';

/** One run, described so that any thread can do it and gets the same. */
export interface RunJob {
  kind: 'run';
  cluster: Cluster;
  trace: TraceSpec;
  policy: SimPolicy;
  seed: number;
  entries: number;
  objective: ObjectiveName;
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
  /** whether the SLOs go with each request, or are only what goodput is counted against */
  sendSlo: boolean;
  warmupS: number;
  plots: boolean;
  /** as in RunOptions */
  cacheSource?: CacheSourceName | undefined;
}

/** A measurement of capacity. */
export interface CapacityJob {
  kind: 'capacity';
  cluster: Cluster;
  trace: TraceSpec;
  seed: number;
}

export type Job = RunJob | CapacityJob;

export interface RunDone {
  kind: 'run';
  result: RunResult;
  dropped: Dropped;
  /** mean rate of arrivals, requests/s */
  offeredRps: number;
  plots: RunPlots | null;
}

export interface CapacityDone {
  kind: 'capacity';
  /** requests/s */
  capacityRps: number;
  requests: number;
}

export type JobDone = RunDone | CapacityDone;

/** Requests of the last scenario: runs of one cell follow each other, and making requests takes a while. */
let last: { key: string; scenario: Scenario } | undefined;

/** Does one job in this thread. */
export async function runJob(job: Job): Promise<JobDone> {
  const { cluster, trace, seed } = job;
  const key = JSON.stringify([trace, cluster, seed]);
  if (last?.key !== key) {
    // Both at once would take twice the memory.
    last = undefined;
    last = { key, scenario: makeScenario(trace, cluster, seed) };
  }
  const { requests, dropped } = last.scenario;
  if (job.kind === 'capacity')
    return { kind: 'capacity', capacityRps: await capacityOf(cluster, requests, seed), requests: requests.length };
  const { policy, entries, objective, sloTtftMs, sloTpotMs, sendSlo, warmupS, cacheSource } = job;
  const sent = sendSlo ? { sloTtftMs, sloTpotMs } : { sloTtftMs: undefined, sloTpotMs: undefined };
  const record = await runPolicy({ cluster, requests, policy, objective, ...sent, entries, seed, cacheSource });
  const lastMs = requests.at(-1)?.arrivalMs ?? 0;
  return {
    kind: 'run',
    result: runResult(record, requests, { policy, seed, warmupS, sloTtftMs, sloTpotMs }),
    dropped,
    offeredRps: lastMs > 0 ? ((requests.length - 1) * 1000) / lastMs : 0,
    plots: job.plots ? runPlots(record, lastMs) : null,
  };
}
