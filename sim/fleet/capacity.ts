import { LodestarError } from '../../shared/errors.ts';
import type { Cluster } from './cluster.ts';
import type { SimRequest } from './plan.ts';
import { runPolicy } from './run.ts';

/** All requests arrive within this time, ms: long before the first tenth of them is done. */
const FLOOD_MS = 2000;
const FROM = 0.2;
const TO = 0.8;

/**
 * Capacity of a cluster for a trace, requests/s: its requests arrive in their order, evenly within 2 s, at one entry that routes by `lmetric`; capacity is completions a
 * second between the moment when 20 % of the requests are done and the moment when 80 % are. So every instance has work all the time, and neither the
 * filling of the fleet nor the last long answers count. The cluster's events are left out: capacity is that of all its instances, undisturbed.
 */
export async function capacityOf(cluster: Cluster, requests: readonly SimRequest[], seed: number): Promise<number> {
  const flood = requests.map((request, index) => ({ ...request, arrivalMs: (index * FLOOD_MS) / requests.length }));
  const record = await runPolicy({
    cluster: { ...cluster, events: [] }, requests: flood, policy: 'lmetric', objective: 'ttft', sloTtftMs: undefined, sloTpotMs: undefined, entries: 1, seed,
  });
  const endsMs = Float64Array.from(record.outcomes.filter((one) => one.ok), (one) => one.request.arrivalMs + one.e2eMs).toSorted();
  const from = Math.floor(FROM * endsMs.length);
  const to = Math.floor(TO * endsMs.length);
  const spanMs = (endsMs[to] ?? NaN) - (endsMs[from] ?? NaN);
  if (!(spanMs > 0)) throw new LodestarError('TRACE_INVALID', `capacity cannot be measured with ${requests.length} requests, of which ${endsMs.length} succeeded: take more of the trace`);
  return ((to - from) * 1000) / spanMs;
}
