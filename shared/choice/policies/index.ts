import type { CandidateState, RoutingRequest } from '../../candidate.ts';
import type { Rng } from '../../env.ts';
import { learned } from './learned.ts';
import { leastRequest } from './least-request.ts';
import { lmetric } from './lmetric.ts';
import { prefixLoad } from './prefix-load.ts';
import { random } from './random.ts';
import { roundRobin } from './round-robin.ts';

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
  rng: Rng;
}

/** A chosen candidate's index, and the probability with which the policy would choose it again in this state. */
export interface Choice {
  index: number;
  propensity: number;
}

export interface Policy {
  choose(input: ChoiceInput): Choice;
}

/** A policy's entry in the registry; `create` makes one with its own state (a rotation counter, say). */
export interface PolicyKind {
  readonly name: string;
  readonly describe: string;
  /** true if it reads `costs` */
  readonly needsPrediction: boolean;
  create(): Policy;
}

export const policies = {
  learned,
  'round-robin': roundRobin,
  random,
  'least-request': leastRequest,
  'prefix-load': prefixLoad,
  lmetric,
} as const satisfies Record<string, PolicyKind>;

export type PolicyName = keyof typeof policies;
export const POLICY_NAMES = Object.keys(policies) as [PolicyName, ...PolicyName[]];
