import { type CandidateState, type RoutingRequest, uncachedTokens } from '../../shared/candidate.ts';
import { objectives } from '../../shared/choice/objectives/index.ts';
import { policies, type PolicyName } from '../../shared/choice/policies/index.ts';
import type { Prediction } from '../../shared/choice/objectives/objective.ts';
import { scoreCandidate } from '../../shared/choice/score.ts';
import type { Env } from '../../shared/env.ts';
import { FEATURE_COUNT, writeFeatureRow } from '../../shared/features.ts';
import { HEAD_COUNT } from '../../shared/predictor/net.ts';
import { estimatePrior, type PriorEstimate } from '../../shared/predictor/prior.ts';
import { type Regime, regimeOf } from '../../shared/sample.ts';
import type { InstanceView } from './instances.ts';
import type { Snapshot } from './snapshot.ts';
import { MAX_ROWS, type TableState } from './table-state.ts';

/** Temperature of near-ties: its floor, and what each ms of the state's age adds, up to a second. */
const TEMPERATURE_MS = 0.5;
const TEMPERATURE_PER_AGE_MS = 0.01;
/** Exploration draws among candidates whose cost is at most this many times the best: farther out it only hurts. */
const EXPLORE_WITHIN = 2;

/** What was chosen, with everything the sample and the receipt need. */
export interface Decision {
  view: InstanceView;
  /** FEATURE_COUNT floats of the chosen candidate, a copy */
  row: Float32Array;
  priorTtftMs: number;
  priorTpotMs: number;
  predictedTtftMs: number;
  predictedTtftP90Ms: number;
  promptTokens: number;
  hitTokens: number;
  ownTokens: number;
  regime: Regime;
  policy: PolicyName;
  reason: string;
  propensity: number;
  tableVersion: number;
  /** the policy's own note on its choice */
  memo: unknown;
  candidates: { instance: string; score: number; predictedTtftMs: number; hitTokens: number; ageMs: number }[];
}

/** Scores and chooses. Keeps its buffers, so a decision allocates its result and little else. */
export class Decider {
  private readonly tables: TableState;
  private readonly env: Env;
  private rows = new Float32Array(MAX_ROWS * FEATURE_COUNT);
  private residuals = new Float32Array(MAX_ROWS * HEAD_COUNT);
  private priors: PriorEstimate[] = [];
  private predictions: Prediction[] = [];
  private costs = new Float64Array(MAX_ROWS);
  private scores = new Float64Array(MAX_ROWS);

  constructor(tables: TableState, env: Env) {
    this.tables = tables;
    this.env = env;
  }

  /** Chooses one of the snapshot's candidates; there must be at least one. */
  decide(request: RoutingRequest, snapshot: Snapshot): Decision {
    const { candidates } = snapshot;
    const { clock, rng } = this.env;
    this.predict(request, candidates);
    const regime = this.regime(candidates);
    const { policy, reason } = this.tables.inForce(regime);
    if (policies[policy].needsPrediction) this.price(request, candidates);
    const temperatureMs = TEMPERATURE_MS + TEMPERATURE_PER_AGE_MS * Math.min(1000, snapshot.maxAgeMs);
    const input = {
      request,
      candidates,
      costs: this.costs,
      scores: this.scores,
      temperatureMs,
      nowMs: clock.nowMs(),
      rng,
    };
    const choice = this.tables.policy(policy).choose(input);
    const rate = policy === 'learned' && candidates.length > 1 ? (this.tables.table?.exploration ?? 0) : 0;
    const explored = rate > 0 ? this.explore(choice.index, candidates.length, rate) : undefined;
    const index = explored ?? choice.index;
    return this.result(snapshot, index, {
      request,
      regime: this.regimeOf(index, candidates),
      policy,
      memo: explored === undefined ? choice.memo : undefined,
      reason:
        explored === undefined ? (snapshot.relaxed ? `${reason}, ${snapshot.relaxed} relaxed` : reason) : 'explore',
      propensity:
        explored === undefined
          ? choice.propensity * (1 - this.exploredShare(choice.index, candidates.length, rate))
          : rate / candidates.length,
    });
  }

  /** Prior, feature row and, with a net, residual of every candidate. */
  private predict(request: RoutingRequest, candidates: readonly CandidateState[]): void {
    this.reserve(candidates.length);
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i] as CandidateState;
      const prior = estimatePrior(request, candidate, this.priors[i] as PriorEstimate);
      writeFeatureRow(this.rows, i * FEATURE_COUNT, request, candidate, prior);
    }
    const { scorer, table } = this.tables;
    if (scorer) {
      for (let from = 0; from < candidates.length; from += MAX_ROWS) {
        const n = Math.min(MAX_ROWS, candidates.length - from);
        scorer.score(this.rows.subarray(from * FEATURE_COUNT), n, this.residuals.subarray(from * HEAD_COUNT));
      }
    }
    for (let i = 0; i < candidates.length; i++) {
      const prior = this.priors[i] as PriorEstimate;
      const out = this.predictions[i] as Prediction;
      const at = i * HEAD_COUNT;
      out.ttftMs = prior.ttftMs * (scorer ? Math.exp(this.residuals[at] as number) : 1);
      out.ttftP90Ms = scorer
        ? Math.max(out.ttftMs, prior.ttftMs * Math.exp(this.residuals[at + 1] as number))
        : prior.ttftMs * (table?.p90Factor.ttft ?? 2);
      out.tpotMs = prior.tpotMs * (scorer ? Math.exp(this.residuals[at + 2] as number) : 1);
      out.tpotP90Ms = scorer
        ? Math.max(out.tpotMs, prior.tpotMs * Math.exp(this.residuals[at + 3] as number))
        : prior.tpotMs * (table?.p90Factor.tpot ?? 2);
    }
  }

  private price(request: RoutingRequest, candidates: readonly CandidateState[]): void {
    const objective = objectives[this.tables.objective];
    const { weights } = this.tables;
    for (let i = 0; i < candidates.length; i++) {
      const prediction = this.predictions[i] as Prediction;
      const prior = this.priors[i] as PriorEstimate;
      this.costs[i] = scoreCandidate(request, candidates[i] as CandidateState, prediction, prior, objective, weights);
    }
  }

  /** The state that the request meets at best: where its predicted TTFT is lowest. */
  private regime(candidates: readonly CandidateState[]): Regime {
    let best = 0;
    for (let i = 1; i < candidates.length; i++) {
      if ((this.predictions[i] as Prediction).ttftMs < (this.predictions[best] as Prediction).ttftMs) best = i;
    }
    return this.regimeOf(best, candidates);
  }

  private regimeOf(index: number, candidates: readonly CandidateState[]): Regime {
    return regimeOf(
      (candidates[index] as CandidateState).pendingTokens,
      (this.priors[index] as PriorEstimate).overTokens,
    );
  }

  /**
   * Now and then another candidate than the best, if one is near enough: the learner sees what else would have
   * happened.
   */
  private explore(best: number, n: number, rate: number): number | undefined {
    if (this.env.rng() >= rate) return undefined;
    const pick = Math.min(n - 1, Math.floor(this.env.rng() * n));
    return this.mayExplore(pick, best) ? pick : undefined;
  }

  private mayExplore(pick: number, best: number): boolean {
    return pick !== best && (this.scores[pick] as number) <= EXPLORE_WITHIN * (this.scores[best] as number);
  }

  /** Probability with which exploration takes the request away from `best`. */
  private exploredShare(best: number, n: number, rate: number): number {
    if (rate === 0) return 0;
    let others = 0;
    for (let i = 0; i < n; i++) if (this.mayExplore(i, best)) others += 1;
    return (rate * others) / n;
  }

  private result(
    snapshot: Snapshot,
    index: number,
    made: {
      request: RoutingRequest;
      regime: Regime;
      policy: PolicyName;
      memo: unknown;
      reason: string;
      propensity: number;
    },
  ): Decision {
    const candidate = snapshot.candidates[index] as CandidateState;
    const prediction = this.predictions[index] as Prediction;
    const prior = this.priors[index] as PriorEstimate;
    const { request, ...rest } = made;
    return {
      ...rest,
      view: snapshot.views[index] as InstanceView,
      row: this.rows.slice(index * FEATURE_COUNT, (index + 1) * FEATURE_COUNT),
      priorTtftMs: prior.ttftMs,
      priorTpotMs: prior.tpotMs,
      predictedTtftMs: prediction.ttftMs,
      predictedTtftP90Ms: prediction.ttftP90Ms,
      promptTokens: request.promptTokens,
      hitTokens: candidate.hitTokens,
      ownTokens: uncachedTokens(request, candidate),
      tableVersion: this.tables.table?.version ?? 0,
      candidates: snapshot.candidates.map((one, i) => ({
        instance: one.report.instance,
        score: this.scores[i] as number,
        predictedTtftMs: (this.predictions[i] as Prediction).ttftMs,
        hitTokens: one.hitTokens,
        ageMs: one.ageMs,
      })),
    };
  }

  private reserve(n: number): void {
    if (this.costs.length < n) {
      const size = 2 ** Math.ceil(Math.log2(n));
      this.rows = new Float32Array(size * FEATURE_COUNT);
      this.residuals = new Float32Array(size * HEAD_COUNT);
      this.costs = new Float64Array(size);
      this.scores = new Float64Array(size);
    }
    while (this.priors.length < n) {
      this.priors.push({ ttftMs: 0, tpotMs: 0, workMs: 0, baseMs: 0, overTokens: 0, kvPressure: 0 });
      this.predictions.push({ ttftMs: 0, ttftP90Ms: 0, tpotMs: 0, tpotP90Ms: 0 });
    }
  }
}
