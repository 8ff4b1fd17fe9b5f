import type { BrainConfig } from '../../shared/config/index.ts';
import { type Cluster, type ClusterEvent, parseCluster } from '../../sim/fleet/cluster.ts';
import type { ClientOutcome } from '../../sim/fleet/entry.ts';
import { type SimRequest, simRequest } from '../../sim/fleet/plan.ts';
import { type RunRecord, runPolicy, type SimPolicy } from '../../sim/fleet/run.ts';
import type { Tamper } from '../../sim/fleet/tamper.ts';
import { simPrompt } from '../../sim/workloads/prompts.ts';
import { synthesize } from '../../sim/workloads/synthetic.ts';

/** The synthetic traces' own pace. */
const NOMINAL_RATE = 10;

export interface DriftFleet {
  /** GPU of each instance */
  gpus: readonly string[];
  kind: 'shared-prompts' | 'agents';
  /** mean requests/s */
  rate: number;
  seconds: number;
  entries: number;
}

export interface DriftRun {
  policy: SimPolicy;
  seed: number;
  events?: readonly ClusterEvent[];
  tamper?: Tamper;
  brain?: Partial<BrainConfig>;
}

/** A cluster by the GPUs of its instances, with the step law that the predictor does not share. */
export function clusterOf(gpus: readonly string[], events: readonly ClusterEvent[] = []): Cluster {
  const cluster = parseCluster(JSON.stringify({ instances: gpus.map((gpu) => ({ gpu })) }), 'drift');
  return { ...cluster, events: [...events] };
}

/** Requests of a made-up trace, at the fleet's rate. */
export function requestsOf(fleet: DriftFleet, seed: number): SimRequest[] {
  const speed = fleet.rate / NOMINAL_RATE;
  const rows = synthesize(`synthetic:${fleet.kind}`, seed, fleet.seconds * 1000 * speed);
  return rows.map((row, index) =>
    simRequest(index, row.arrivalMs / speed, simPrompt(row, seed), row.outputTokens, row.client ?? ''),
  );
}

/** One policy over the fleet's requests. */
export function runDrift(
  fleet: DriftFleet,
  requests: readonly SimRequest[],
  { policy, seed, events, tamper, brain }: DriftRun,
): Promise<RunRecord> {
  return runPolicy({
    cluster: clusterOf(fleet.gpus, events),
    requests,
    policy,
    seed,
    entries: fleet.entries,
    objective: 'ttft',
    sloTtftMs: undefined,
    sloTpotMs: undefined,
    tamper,
    brain,
  });
}

/** TTFTs in ms of the requests that arrived in [fromS, toS), failed ones left out. */
export function ttftsBetween(outcomes: readonly ClientOutcome[], fromS: number, toS: number): number[] {
  return outcomes
    .filter(({ ok, request }) => ok && request.arrivalMs >= fromS * 1000 && request.arrivalMs < toS * 1000)
    .map(({ ttftMs }) => ttftMs);
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** Share of the requests that arrived in [fromS, toS) decided by each policy. */
export function shareBetween(
  outcomes: readonly ClientOutcome[],
  fromS: number,
  toS: number,
  of: (outcome: ClientOutcome) => boolean,
): number {
  const those = outcomes.filter(
    ({ ok, request }) => ok && request.arrivalMs >= fromS * 1000 && request.arrivalMs < toS * 1000,
  );
  return those.filter(of).length / Math.max(1, those.length);
}
