import { LodestarError } from '../../shared/errors.ts';
import { pace } from '../workloads/trace.ts';
import type { Cluster } from './cluster.ts';
import type { SimRequest } from './plan.ts';
import { runPolicy } from './run.ts';

/** In the flood all requests arrive within this time, ms. */
const FLOOD_MS = 2000;
const FROM = 0.2;
const TO = 0.8;
const OVERLOAD = 1.5;
/** The rate is raised while that brings this much more. */
const GAIN = 1.1;
const MAX_ROUNDS = 6;

/**
 * Capacity of a cluster for a trace, requests/s: the throughput under overload. Throughput is completions a second
 * between the moment when 20 % of the requests are done and the moment when 80 % are, at one entry that routes by
 * `lmetric`, so that neither the filling of the fleet nor the last long answers count. First all requests arrive within
 * 2 s. A flood is spread by number, not by the speed of instances, and its requests evict each other's prefixes; so
 * then they arrive with the trace's own bursts at 1.5 × the throughput found, again and again while that brings 10 %
 * more; the last is the capacity. The cluster's events are left out: capacity is that of all its instances,
 * undisturbed. Throws TRACE_INVALID where the requests are too few to tell.
 */
export async function capacityOf(cluster: Cluster, requests: readonly SimRequest[], seed: number): Promise<number> {
  const calm = { ...cluster, events: [] };
  const flood = requests.map((request, index) => ({ ...request, arrivalMs: (index * FLOOD_MS) / requests.length }));
  let found = await throughput(calm, flood, seed);
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const next = await throughput(calm, pace(requests, { rate: OVERLOAD * found }), seed);
    if (next < GAIN * found) return next;
    found = next;
  }
  return found;
}

async function throughput(cluster: Cluster, requests: readonly SimRequest[], seed: number): Promise<number> {
  const record = await runPolicy({
    cluster,
    requests,
    policy: 'lmetric',
    objective: 'ttft',
    sloTtftMs: undefined,
    sloTpotMs: undefined,
    entries: 1,
    seed,
  });
  const endsMs = Float64Array.from(
    record.outcomes.filter((one) => one.ok),
    (one) => one.request.arrivalMs + one.e2eMs,
  ).toSorted();
  const from = Math.floor(FROM * endsMs.length);
  const to = Math.floor(TO * endsMs.length);
  const spanMs = (endsMs[to] ?? NaN) - (endsMs[from] ?? NaN);
  if (!(spanMs > 0))
    throw new LodestarError(
      'TRACE_INVALID',
      `capacity cannot be measured with ${requests.length} requests, of which ${endsMs.length} succeeded: take more of the trace`,
    );
  return ((to - from) * 1000) / spanMs;
}
