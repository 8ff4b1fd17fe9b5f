/** Requests in flight told apart; more share the last bucket. */
const BUCKETS = 64;
/** Latest latencies of a bucket behind its median. */
const KEPT = 8;
const MAX_AGE_MS = 30_000;

interface Bucket {
  values: number[];
  next: number;
  medianMs: number;
  atMs: number;
}

/**
 * Latency of one instance by the number of requests it had in flight: the median of the last few, for a probe's answer
 * (Prequal).
 */
export class LatencyByLoad {
  private readonly buckets: (Bucket | undefined)[] = Array.from({ length: BUCKETS }, () => undefined);

  add(inFlight: number, latencyMs: number, nowMs: number): void {
    const at = bucketOf(inFlight);
    let bucket = this.buckets[at];
    if (!bucket || nowMs - bucket.atMs > MAX_AGE_MS) {
      bucket = { values: [], next: 0, medianMs: 0, atMs: nowMs };
      this.buckets[at] = bucket;
    }
    bucket.values[bucket.next] = latencyMs;
    bucket.next = (bucket.next + 1) % KEPT;
    bucket.atMs = nowMs;
    const sorted = bucket.values.toSorted((a, b) => a - b);
    bucket.medianMs = sorted[Math.floor(sorted.length / 2)] as number;
  }

  /** Median latency at the nearest load of which there is fresh news, ms; undefined if there is none. */
  estimateMs(inFlight: number, nowMs: number): number | undefined {
    const at = bucketOf(inFlight);
    for (let distance = 0; distance < BUCKETS; distance++) {
      const found = this.fresh(at - distance, nowMs) ?? this.fresh(at + distance, nowMs);
      if (found !== undefined) return found;
    }
    return undefined;
  }

  private fresh(at: number, nowMs: number): number | undefined {
    const bucket = at >= 0 && at < BUCKETS ? this.buckets[at] : undefined;
    return bucket && nowMs - bucket.atMs <= MAX_AGE_MS ? bucket.medianMs : undefined;
  }
}

function bucketOf(inFlight: number): number {
  return Math.min(BUCKETS - 1, Math.max(0, Math.round(inFlight)));
}
