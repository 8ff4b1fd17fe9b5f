import type { CandidateState } from '../../candidate.ts';
import { PerInstance } from '../learners/per-instance.ts';
import { argminRandomTies } from '../ties.ts';
import type { Policy, PolicyKind } from './policy.ts';
import { kvUsageRatioOf } from './readings.ts';

/** Tokens per second of an instance that has not told its own. */
const DEFAULT_THROUGHPUT = 2000;
const KV_WEIGHT_S = 0.15;
const KV_MAX = 0.999;
/** Weight of each new observation of the throughput. */
const ALPHA = 0.1;

/**
 * SMG's least_load (June 2026), argmin, ties at random, in seconds:
 *
 *   (queued uncached tokens + tokens sent since the last poll) / generation throughput + 0.15·k/(1 − k)      k clamped to 0.999
 *
 * Defaults throughout. Tuning: both sums are `pendingTokens`, the ledger's with this entry's reservations, so there is
 * no poll to reckon from. The engine's own throughput gauge is replaced by what answers show: sequences in the batch
 * over the time per output token, smoothed (0.1) per instance; 2000 tok/s until the first.
 */
export const leastLoad: PolicyKind = {
  name: 'least-load',
  describe: 'seconds of queued tokens by learned throughput, plus a KV penalty',
  needsPrediction: false,
  create: createLeastLoad,
};

function createLeastLoad(): Policy {
  const throughputs = new PerInstance(() => ({ tokensPerS: 0 }));
  return {
    choose({ candidates, scores, rng }) {
      for (let i = 0; i < candidates.length; i++) {
        const candidate = candidates[i] as CandidateState;
        const k = Math.min(KV_MAX, kvUsageRatioOf(candidate));
        const throughput = throughputs.peek(candidate.report.instance)?.tokensPerS ?? DEFAULT_THROUGHPUT;
        scores[i] = candidate.pendingTokens / throughput + (KV_WEIGHT_S * k) / (1 - k);
      }
      const choice = argminRandomTies(scores, candidates.length, rng);
      return { ...choice, memo: (candidates[choice.index] as CandidateState).decoding + 1 };
    },
    observe({ instance, ok, tpotMs }, memo) {
      if (!ok || tpotMs === null || !(tpotMs > 0) || typeof memo !== 'number') return;
      const seen = throughputs.of(instance);
      const now = (memo * 1000) / tpotMs;
      seen.tokensPerS = seen.tokensPerS === 0 ? now : seen.tokensPerS + ALPHA * (now - seen.tokensPerS);
    },
  };
}
