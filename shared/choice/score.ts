import { type CandidateState, type RoutingRequest, uncachedTokens } from '../candidate.ts';
import type { PriorEstimate } from '../predictor/prior.ts';
import type { Objective } from './objectives/index.ts';

/** Weights of the price of work; they travel in the routing table. Source of the starting values: docs/learning.md. */
export interface ChoiceWeights {
  /** k: requests that will queue behind this one */
  queue: number;
  /** d: running sequences that its prefill slows down */
  decode: number;
  /** e: cache that it displaces */
  kv: number;
  /** f: admissions that it blocks once the cache is nearly full */
  block: number;
}

/** What the predictor says of one request on one candidate, in milliseconds. */
export interface Prediction {
  ttftMs: number;
  ttftP90Ms: number;
  tpotMs: number;
  tpotP90Ms: number;
}

/** Share of KV in use above which a new request starts to block admissions. */
const BLOCK_FROM = 0.7;
const RHO_MAX = 0.9;

/**
 * Cost of sending the request to a candidate, in milliseconds; the lowest wins.
 *
 *   score = objective(prediction) + work·(k·waiting/(1 − ρ) + d·D + e·min(2, u)) + f·max(0, u − 0.7)·own/1000·base
 *
 * The first term is what the request itself will feel, the rest what it does to the requests beside and behind it there. Every term is
 * that instance's own: one price for the fleet piles requests onto the fast kind.
 */
export function scoreCandidate(
  request: RoutingRequest,
  candidate: CandidateState,
  prediction: Prediction,
  prior: PriorEstimate,
  objective: Objective,
  weights: ChoiceWeights,
  meanOutputTokens: number,
): number {
  const rho = Math.min(RHO_MAX, candidate.workRatio);
  const pressure = prior.kvPressure;
  const pendingRequests = candidate.waiting + candidate.prefilling;
  const price = (weights.queue * pendingRequests) / (1 - rho) + weights.decode * candidate.decoding + weights.kv * Math.min(2, pressure);
  const blocked = weights.block * Math.max(0, pressure - BLOCK_FROM) * (uncachedTokens(request, candidate) / 1000) * prior.baseMs;
  return objective.costMs(prediction, request, meanOutputTokens) + prior.workMs * price + blocked;
}
