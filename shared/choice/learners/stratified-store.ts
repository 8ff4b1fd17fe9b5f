const QUEUE_BUCKETS = 5;
const KV_BUCKETS = 20;
export const PREFIX_BUCKETS = 4;
const BUCKET_SAMPLES = 500;

/** Queue lengths at which the next bucket starts. */
const QUEUE_EDGES = [1, 3, 6, 11];

export interface LatencySample {
  row: Float32Array;
  ttftMs: number;
  tpotMs: number | null;
}

/** Which quarter of the cached share a prompt falls in. */
export function prefixBucketOf(hitRatio: number): number {
  return Math.min(PREFIX_BUCKETS - 1, Math.floor(hitRatio * PREFIX_BUCKETS));
}

/**
 * Samples in 5 buckets of queue length × 20 of KV use × 4 of cached prefix, the last 500 of each, so that rare states
 * are not washed away by common ones (llm-d's latency predictor). Nothing expires by age, as there.
 */
export class StratifiedStore {
  private readonly buckets = new Map<number, LatencySample[]>();
  size = 0;

  add(sample: LatencySample, waiting: number, kvUsageRatio: number, hitRatio: number): void {
    const found = QUEUE_EDGES.findIndex((edge) => waiting < edge);
    const queue = found < 0 ? QUEUE_BUCKETS - 1 : found;
    const kv = Math.min(KV_BUCKETS - 1, Math.floor(kvUsageRatio * KV_BUCKETS));
    const key = (queue * KV_BUCKETS + kv) * PREFIX_BUCKETS + prefixBucketOf(hitRatio);
    let bucket = this.buckets.get(key);
    if (!bucket) this.buckets.set(key, (bucket = []));
    bucket.push(sample);
    if (bucket.length > BUCKET_SAMPLES) bucket.shift();
    else this.size += 1;
  }

  /** At most `max` samples: the newest of each bucket, from all buckets alike as far as they have them. */
  take(max: number): LatencySample[] {
    const lengths = [...this.buckets.values()].map(({ length }) => length).toSorted((a, b) => a - b);
    let left = max;
    let quota = 0;
    for (const [i, length] of lengths.entries()) {
      quota = Math.floor(left / (lengths.length - i));
      if (length > quota) break;
      left -= length;
      quota = BUCKET_SAMPLES;
    }
    return [...this.buckets.values()].flatMap((bucket) => (quota > 0 ? bucket.slice(-quota) : []));
  }
}
