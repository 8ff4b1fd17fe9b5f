import type { CandidateState, RoutingRequest } from '../../candidate.ts';
import type { Clock, Rng } from '../../env.ts';

/** What a policy chooses from: the candidates that passed the guards, at least one. */
export interface ChoiceInput {
  request: RoutingRequest;
  candidates: readonly CandidateState[];
  /** cost of each candidate by prediction (score.ts), ms; only filled for policies that need predictions */
  costs: Float64Array;
  /** temperature for near-ties, ms (grows with the age of the state) */
  temperatureMs: number;
  /** out: what the policy ranked by, lower is better; for the receipt */
  scores: Float64Array;
  /** clock ms */
  nowMs: number;
  rng: Rng;
}

/** A chosen candidate's index, and the probability with which the policy would choose it again in this state. */
export interface Choice {
  index: number;
  propensity: number;
  /** handed back to the policy with what became of the request */
  memo?: unknown;
}

/** What became of a request, for policies that learn from it. */
export interface PolicyOutcome {
  instance: string;
  /** clock ms of the end */
  atMs: number;
  ok: boolean;
  /** null where it was not observed */
  ttftMs: number | null;
  tpotMs: number | null;
  outputTokens: number;
}

export interface Policy {
  choose(input: ChoiceInput): Choice;
  /** A request that this policy chose for has ended; `memo` is that of its choice. */
  observe?(outcome: PolicyOutcome, memo: unknown): void;
}

/** What a policy with state of its own may use. */
export interface PolicyEnv {
  clock: Clock;
  rng: Rng;
}

/** A policy's entry in the registry; `create` makes one with its own state (a rotation counter, say). */
export interface PolicyKind {
  readonly name: string;
  readonly describe: string;
  /** true if it reads `costs` */
  readonly needsPrediction: boolean;
  /** the original learns at one gateway from all traffic: simulated entries share one policy */
  readonly central?: true;
  create(env: PolicyEnv): Policy;
}
