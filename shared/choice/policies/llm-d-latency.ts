import type { CandidateState, RoutingRequest } from '../../candidate.ts';
import { type Rng, seededRng } from '../../env.ts';
import { LATENCY_FEATURES, LatencyModel } from '../learners/latency-model.ts';
import { prefixBucketOf } from '../learners/stratified-store.ts';
import type { Choice, ChoiceInput, Policy, PolicyEnv, PolicyKind } from './policy.ts';
import { blockHitRatioOf, kvUsageRatioOf } from './readings.ts';

const STRICT_AFFINITY = 0.99;
const LOOSE_AFFINITY = 0.8;
const MAX_PENALTY_MS = 5000;
/** Chance that a request goes to those who will miss its objectives although others meet them. */
const NEGATIVE_TIER = 0.01;
const TTFT_WEIGHT = 0.8;
const TPOT_WEIGHT = 0.2;

/**
 * llm-d's predicted latency (llm-d/llm-d-router @ ebab687 and its latency predictor): trees predict TTFT and TPOT per
 * candidate (learners/latency-model.ts), then: strict affinity filter (0.99 of the prompt cached, unless that costs 5 s
 * of TTFT more) → tier of those with headroom below the request's objectives (99 %) or without (1 %) → loose affinity
 * filter (0.80) → drawn in proportion to (⌊100·(1 − c)⌋ + 1)/100 with c = 0.8·TTFT + 0.2·TPOT, each |headroom| scaled
 * to 0..1 over those left. Without headroom anywhere (always so when the request names no objective): idle instances
 * alone, if any; else those that miss TPOT alone, TTFT alone, or both. Until there are predictions: drawn in proportion
 * to the mean of free KV, short queue and cached share.
 *
 * Defaults throughout. Tuning: features from the ledger and the shared cache view (decoded context included, which the
 * original leaves at 0); labels are always those of the first byte; predictions take effect at once, where the
 * original's servers copy them every 30 s; smaller trees. As there, nothing names the instance or its GPU, so a slower
 * kind shows only by its queue.
 */
export const llmDLatency: PolicyKind = {
  name: 'llm-d-latency',
  describe: 'boosted trees predict TTFT and TPOT; affinity filters and headroom tiers, then drawn by score',
  needsPrediction: false,
  central: true,
  create: createLlmDLatency,
};

interface Memo {
  row: Float32Array;
  waiting: number;
  kvUsageRatio: number;
  hitRatio: number;
}

function isMemo(memo: unknown): memo is Memo {
  return typeof memo === 'object' && memo !== null && 'row' in memo;
}

function createLlmDLatency(env: PolicyEnv): Policy {
  const model = new LatencyModel(env.clock, seededRng(Math.floor(env.rng() * 2 ** 32)));
  const row = new Float32Array(LATENCY_FEATURES);
  let pipeline = new Pipeline(0);
  return {
    choose(input) {
      const { request, candidates } = input;
      let choice: Choice;
      if (model.ready) {
        if (pipeline.size < candidates.length) pipeline = new Pipeline(candidates.length);
        for (let i = 0; i < candidates.length; i++) {
          const candidate = candidates[i] as CandidateState;
          writeRow(request, candidate, row);
          pipeline.set(i, model.ttftMs(row), model.tpotMs(row), blockHitRatioOf(request, candidate));
        }
        choice = pipeline.choose(input);
      } else choice = chooseComposite(input);
      const taken = candidates[choice.index] as CandidateState;
      writeRow(request, taken, row);
      const memo: Memo = {
        row: row.slice(),
        waiting: taken.waiting,
        kvUsageRatio: kvUsageRatioOf(taken),
        hitRatio: blockHitRatioOf(request, taken),
      };
      return { ...choice, memo };
    },
    observe({ ok, ttftMs, tpotMs }, memo) {
      if (!ok || ttftMs === null || !Number.isFinite(ttftMs) || !isMemo(memo)) return;
      model.add(
        { row: memo.row, ttftMs, tpotMs: tpotMs !== null && Number.isFinite(tpotMs) ? tpotMs : null },
        memo.waiting,
        memo.kvUsageRatio,
        memo.hitRatio,
      );
    },
  };
}

/** The predictor's features; the first seven are those of the TPOT model. */
function writeRow(request: RoutingRequest, candidate: CandidateState, row: Float32Array): void {
  const hitRatio = blockHitRatioOf(request, candidate);
  row[0] = candidate.waiting > 0 ? 1 : 0;
  row[1] = kvUsageRatioOf(candidate);
  row[2] = request.promptTokens;
  row[3] = candidate.waiting;
  row[4] = candidate.inFlight;
  row[5] = candidate.pendingTokens;
  row[6] = candidate.decodeContextTokens;
  row[7] = hitRatio;
  row[8] = (1 - hitRatio) * request.promptTokens;
  row[9] = prefixBucketOf(hitRatio);
}

/** Draws in proportion to the negated scores; positive scores are out. */
function drawByScore(scores: Float64Array, n: number, rng: Rng): Choice {
  let sum = 0;
  for (let i = 0; i < n; i++) sum += Math.max(0, -(scores[i] as number));
  if (!(sum > 0)) return { index: Math.min(n - 1, Math.floor(rng() * n)), propensity: 1 / n };
  let left = rng() * sum;
  let index = 0;
  for (let i = 0; i < n; i++) {
    const weight = -(scores[i] as number);
    if (weight <= 0) continue;
    index = i;
    left -= weight;
    if (left < 0) break;
  }
  return { index, propensity: -(scores[index] as number) / sum };
}

function chooseComposite({ request, candidates, scores, rng }: ChoiceInput): Choice {
  let max = 0;
  for (const { waiting } of candidates) max = Math.max(max, waiting);
  for (let i = 0; i < candidates.length; i++) {
    const candidate = candidates[i] as CandidateState;
    const queue = max > 0 ? (max - candidate.waiting) / max : 1;
    scores[i] = -(1 - kvUsageRatioOf(candidate) + queue + blockHitRatioOf(request, candidate)) / 3;
  }
  return drawByScore(scores, candidates.length, rng);
}

/** Filters and scores over the predictions of one request. Keeps its buffers. */
class Pipeline {
  readonly size: number;
  private readonly ttftMs: Float64Array;
  private readonly tpotMs: Float64Array;
  private readonly hits: Float64Array;
  /** 1 for candidates still in */
  private readonly kept: Uint8Array;

  constructor(size: number) {
    this.size = size;
    this.ttftMs = new Float64Array(size);
    this.tpotMs = new Float64Array(size);
    this.hits = new Float64Array(size);
    this.kept = new Uint8Array(size);
  }

  set(i: number, ttftMs: number, tpotMs: number, hitRatio: number): void {
    this.ttftMs[i] = ttftMs;
    this.tpotMs[i] = tpotMs;
    this.hits[i] = hitRatio;
    this.kept[i] = 1;
  }

  choose({ request, candidates, scores, rng }: ChoiceInput): Choice {
    const n = candidates.length;
    const ttftSlo = request.sloTtftMs ?? 0;
    const tpotSlo = request.sloTpotMs ?? 0;
    const missesTtft = (i: number): boolean => (this.ttftMs[i] as number) > ttftSlo;
    const missesTpot = (i: number): boolean => (this.tpotMs[i] as number) > tpotSlo;
    const meets = (i: number): boolean => !missesTtft(i) && !missesTpot(i);

    this.stick(n, STRICT_AFFINITY);
    let share = 1;
    let positive = this.any(n, meets);
    if (positive && this.any(n, (i) => !meets(i))) {
      positive = rng() >= NEGATIVE_TIER;
      share = positive ? 1 - NEGATIVE_TIER : NEGATIVE_TIER;
      this.keep(n, positive ? meets : (i) => !meets(i));
    }
    this.stick(n, LOOSE_AFFINITY);
    if (!positive) {
      const ways = [
        (i: number) => (candidates[i] as CandidateState).inFlight === 0,
        (i: number) => !missesTtft(i),
        (i: number) => !missesTpot(i),
      ];
      const way = ways.find((test) => this.any(n, test));
      if (way) this.keep(n, way);
    }
    this.score(n, ttftSlo, tpotSlo, scores);
    const choice = drawByScore(scores, n, rng);
    return { index: choice.index, propensity: choice.propensity * share };
  }

  private any(n: number, test: (i: number) => boolean): boolean {
    for (let i = 0; i < n; i++) if (this.kept[i] === 1 && test(i)) return true;
    return false;
  }

  private keep(n: number, test: (i: number) => boolean): void {
    for (let i = 0; i < n; i++) if (!test(i)) this.kept[i] = 0;
  }

  /**
   * Keeps those with at least this share cached alone, unless the best of them is much slower than the best of the
   * others.
   */
  private stick(n: number, threshold: number): void {
    let sticky = Infinity;
    let others = Infinity;
    for (let i = 0; i < n; i++) {
      if (this.kept[i] === 0) continue;
      if ((this.hits[i] as number) >= threshold) sticky = Math.min(sticky, this.ttftMs[i] as number);
      else others = Math.min(others, this.ttftMs[i] as number);
    }
    if (sticky === Infinity || sticky - others > MAX_PENALTY_MS) return;
    this.keep(n, (i) => (this.hits[i] as number) >= threshold);
  }

  /** Scores of those left, negated; 1 for the others. A latency that is the same for all has no say. */
  private score(n: number, ttftSlo: number, tpotSlo: number, scores: Float64Array): void {
    const ttft = this.spread(n, this.ttftMs, ttftSlo);
    const tpot = this.spread(n, this.tpotMs, tpotSlo);
    const ttftWeight = ttft.range > 0 ? TTFT_WEIGHT : 0;
    const tpotWeight = tpot.range > 0 ? TPOT_WEIGHT : 0;
    const weights = ttftWeight + tpotWeight || 1;
    for (let i = 0; i < n; i++) {
      const own = ttftWeight * ((Math.abs(ttftSlo - (this.ttftMs[i] as number)) - ttft.min) / (ttft.range || 1));
      const other = tpotWeight * ((Math.abs(tpotSlo - (this.tpotMs[i] as number)) - tpot.min) / (tpot.range || 1));
      scores[i] = this.kept[i] === 1 ? -(Math.floor(100 * (1 - (own + other) / weights)) + 1) / 100 : 1;
    }
  }

  private spread(n: number, values: Float64Array, slo: number): { min: number; range: number } {
    let min = Infinity;
    let max = -Infinity;
    for (let i = 0; i < n; i++) {
      if (this.kept[i] === 0) continue;
      const headroom = Math.abs(slo - (values[i] as number));
      min = Math.min(min, headroom);
      max = Math.max(max, headroom);
    }
    return { min, range: max - min };
  }
}
