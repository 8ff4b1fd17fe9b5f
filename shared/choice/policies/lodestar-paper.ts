import type { CandidateState, RoutingRequest } from '../../candidate.ts';
import { seededRng } from '../../env.ts';
import { PerInstance } from '../learners/per-instance.ts';
import { RewardModel } from '../learners/reward-model.ts';
import { argminRandomTies } from '../ties.ts';
import type { Choice, ChoiceInput, Policy, PolicyEnv, PolicyKind } from './policy.ts';
import { prefixLoad } from './prefix-load.ts';
import { hitRatioOf, kvUsageRatioOf, runningOf } from './readings.ts';

/** Features beside the one-hot of the GPU's kind, and its slots; kinds beyond them share the last. */
const FEATURES = 10;
const KINDS = 11;
const DIMENSION = FEATURES + KINDS;
const EXPLORATION = 0.05;
const MAX_TTFT_MS = 15_000;
const FRESH_HALF_LIFE_MS = 15_000;
/** Age of a prefix that this entry has not sent there itself. */
const UNKNOWN_AGE_MS = 60_000;
/** Prefix lengths remembered per instance. */
const MAX_PREFIXES = 1024;

/**
 * The Lodestar paper's own method (arXiv 2606.00946; gangmuk/Lodestar @ 23da2a0): argmax of a network's reward = −TTFT
 * in seconds over ten features of request and pod and a one-hot of the GPU's kind, ε-greedy with ε = 0.05;
 * learners/reward-model.ts has the network and its training. Prefix-load's algorithm routes until there is a model.
 * TTFT over 15 s is not learned.
 *
 * As in the authors' runs, the k-filter and the fallback outside the trained range are off. Tuning: without the bugs of
 * the code (dropout while serving, half-trained networks serving, features that differ between training and serving),
 * and training starts cold from 100 samples and 50 new ones, where the authors had 5000, 1000 and a model from random
 * routing; batches are smaller while rows are few. 20 epochs, fewer above 3000 rows (60,000 row passes a round), and
 * 512 replayed samples, so that a round costs seconds.
 * The features come from the ledger and the shared cache view. The age of a prefix is that of the last request of this
 * entry there that ended or matched at the same length, as a policy does not see blocks; context of decoding requests
 * stands for their tokens so far.
 */
export const lodestarPaper: PolicyKind = {
  name: 'lodestar-paper',
  describe: 'the paper’s learner: highest predicted reward (−TTFT), ε-greedy',
  needsPrediction: false,
  central: true,
  create: createLodestarPaper,
};

function createLodestarPaper(env: PolicyEnv): Policy {
  const model = new RewardModel(env.clock, seededRng(Math.floor(env.rng() * 2 ** 32)), DIMENSION);
  const fallback = prefixLoad.create(env);
  const features = new Features();
  return {
    choose(input) {
      const { request, candidates, nowMs } = input;
      const choice = model.ready ? chooseByReward(input, model, features) : fallback.choose(input);
      const taken = candidates[choice.index] as CandidateState;
      const memo = features.row(request, taken, nowMs).slice();
      features.sent(request, taken, nowMs);
      return { ...choice, memo };
    },
    observe({ ok, ttftMs }, memo) {
      if (!ok || ttftMs === null || !(ttftMs <= MAX_TTFT_MS) || !(memo instanceof Float32Array)) return;
      model.add(memo, -ttftMs / 1000);
    },
  };
}

function chooseByReward(
  { request, candidates, scores, nowMs, rng }: ChoiceInput,
  model: RewardModel,
  features: Features,
): Choice {
  const n = candidates.length;
  for (let i = 0; i < n; i++) scores[i] = -model.predict(features.row(request, candidates[i] as CandidateState, nowMs));
  const best = argminRandomTies(scores, n, rng);
  const index = rng() < EXPLORATION ? Math.min(n - 1, Math.floor(rng() * n)) : best.index;
  const greedy = scores[index] === scores[best.index] ? best.propensity * (1 - EXPLORATION) : 0;
  return { index, propensity: greedy + EXPLORATION / n };
}

/** The paper's feature row, and what it must remember for it. */
class Features {
  private readonly out = new Float32Array(DIMENSION);
  private readonly kinds = new Map<string, number>();
  private readonly prefixes = new PerInstance(() => new Map<number, number>());

  /** DIMENSION floats, in one array that the next call overwrites. */
  row(request: RoutingRequest, candidate: CandidateState, nowMs: number): Float32Array {
    const { out } = this;
    const pending = candidate.waiting + candidate.prefilling;
    const hitPercent = Math.round(100 * hitRatioOf(request, candidate));
    out.fill(0);
    out[0] = request.promptTokens;
    out[1] = hitPercent;
    out[2] = hitPercent * 2 ** (-this.ageMs(candidate, nowMs) / FRESH_HALF_LIFE_MS);
    out[3] = kvUsageRatioOf(candidate);
    out[4] = runningOf(candidate);
    out[5] = candidate.waiting;
    out[6] = candidate.pendingPromptTokens * pending;
    out[7] = candidate.decodeContextTokens;
    out[8] = pending;
    out[9] = candidate.decoding;
    out[FEATURES + this.kindOf(candidate.report.kind)] = 1;
    return out;
  }

  /** Notes that the request's blocks were used on the candidate: those that matched, and those that it adds. */
  sent(request: RoutingRequest, candidate: CandidateState, nowMs: number): void {
    const { report, hitTokens } = candidate;
    const known = this.prefixes.of(report.instance);
    for (const tokens of [
      hitTokens,
      Math.floor(request.promptTokens / report.limits.blockTokens) * report.limits.blockTokens,
    ]) {
      known.delete(tokens);
      known.set(tokens, nowMs);
      if (known.size <= MAX_PREFIXES) continue;
      const oldest = known.keys().next();
      if (!oldest.done) known.delete(oldest.value);
    }
  }

  private ageMs({ report, hitTokens }: CandidateState, nowMs: number): number {
    const atMs = this.prefixes.peek(report.instance)?.get(hitTokens);
    return atMs === undefined ? UNKNOWN_AGE_MS : nowMs - atMs;
  }

  private kindOf(kind: string): number {
    let slot = this.kinds.get(kind);
    if (slot === undefined) {
      slot = Math.min(KINDS - 1, this.kinds.size);
      if (this.kinds.size < 1000) this.kinds.set(kind, slot);
    }
    return slot;
  }
}
