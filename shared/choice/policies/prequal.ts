import type { CandidateState } from '../../candidate.ts';
import type { Rng } from '../../env.ts';
import { LatencyByLoad } from '../learners/latency-by-load.ts';
import { PerInstance } from '../learners/per-instance.ts';
import { argminRandomTies } from '../ties.ts';
import type { Policy, PolicyEnv, PolicyKind } from './policy.ts';

const POOL = 16;
/** Quantile of recent requests in flight above which an instance is hot. */
const HOT_QUANTILE = 0.84;
/** Probes behind that quantile. */
const RECENT = 256;
/** Requests in flight told apart; more count as this many. */
const MAX_RIF = 1023;

/** Quantile over the last `RECENT` counts, in O(distinct counts). */
class RecentCounts {
  private readonly ring = new Int32Array(RECENT);
  private readonly counts = new Int32Array(MAX_RIF + 1);
  private size = 0;
  private next = 0;

  add(value: number): void {
    const clamped = Math.min(MAX_RIF, Math.max(0, Math.round(value)));
    if (this.size === RECENT) this.counts[this.ring[this.next] as number]! -= 1;
    else this.size += 1;
    this.ring[this.next] = clamped;
    this.counts[clamped]! += 1;
    this.next = (this.next + 1) % RECENT;
  }

  quantile(q: number): number {
    const rank = q * this.size;
    let below = 0;
    for (let value = 0; value <= MAX_RIF; value++) {
      below += this.counts[value] as number;
      if (below >= rank) return value;
    }
    return MAX_RIF;
  }
}

/**
 * Prequal's hot-cold lexicographic rule (arXiv 2312.10172): a pool of at most 16 probes (requests in flight, latency at
 * that number); hot is who has more in flight than the 0.84 quantile of recent probes. If any is cold: the cold one of
 * the lowest latency; else the fewest in flight. Ties at random.
 *
 * Tuning: a probe is the state that the entry has anyway, fresh for every request, so all instances of a fleet of up to
 * 16 are in the pool and probes need neither a rate nor ageing out; larger fleets draw 16 at random. Latency is time to
 * first token, whose length, unlike that of a whole answer, is the instance's doing; it is learned per instance from
 * outcomes: the median of the last few that met about as many in flight, forgotten after 30 s. An instance without any
 * counts as 0 ms, so it is tried.
 */
export const prequal: PolicyKind = {
  name: 'prequal',
  describe: 'lowest recent latency among instances that are not hot',
  needsPrediction: false,
  create: createPrequal,
};

function createPrequal(env: PolicyEnv): Policy {
  const latencies = new PerInstance(() => new LatencyByLoad());
  const recent = new RecentCounts();
  let order: number[] = [];
  return {
    choose({ candidates, scores, nowMs, rng }) {
      const n = candidates.length;
      if (order.length !== n) order = Array.from({ length: n }, (_, i) => i);
      const pool = Math.min(POOL, n);
      if (n > POOL) draw(order, pool, rng);
      for (let k = 0; k < pool; k++) recent.add((candidates[order[k] as number] as CandidateState).inFlight);
      const theta = recent.quantile(HOT_QUANTILE);
      // Ranks: cold by latency, then hot by requests in flight, then who is not in the pool.
      for (let i = 0; i < n; i++) scores[i] = 2e9;
      for (let k = 0; k < pool; k++) {
        const i = order[k] as number;
        const { inFlight, report } = candidates[i] as CandidateState;
        scores[i] =
          inFlight > theta ? 1e9 + inFlight : (latencies.peek(report.instance)?.estimateMs(inFlight, nowMs) ?? 0);
      }
      const choice = argminRandomTies(scores, n, rng);
      return {
        ...choice,
        propensity: (choice.propensity * pool) / n,
        memo: (candidates[choice.index] as CandidateState).inFlight,
      };
    },
    observe({ instance, ok, ttftMs }, memo) {
      if (ok && ttftMs !== null && typeof memo === 'number')
        latencies.of(instance).add(memo, ttftMs, env.clock.nowMs());
    },
  };
}

/** Moves `count` of the values, drawn at random, to the front. */
function draw(values: number[], count: number, rng: Rng): void {
  for (let k = 0; k < count; k++) {
    const other = k + Math.min(values.length - k - 1, Math.floor(rng() * (values.length - k)));
    const kept = values[k] as number;
    values[k] = values[other] as number;
    values[other] = kept;
  }
}
