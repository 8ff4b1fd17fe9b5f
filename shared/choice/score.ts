import { type CandidateState, type RoutingRequest, uncachedTokens } from '../candidate.ts';
import type { PriorEstimate } from '../predictor/prior.ts';
import type { ChoiceWeights, Objective, Prediction } from './objectives/objective.ts';

/** Share of KV in use above which a new request starts to block admissions. */
const BLOCK_FROM = 0.7;
const RHO_MAX = 0.9;

/**
 * Cost of sending the request to a candidate, in milliseconds; the lowest wins.
 *
 *   score = objective(prediction) + work·(k·waiting/(1 − ρ) + r·ρ/(1 − ρ) + w·D + e·min(2, u)) + w·D·(c3 + c4·L)·min(h, out) + f·max(0, u − 0.7)·own/1000·base
 *
 * The first term is what the request itself will feel, the rest what it does to the requests beside and behind it
 * there: those that queue, now and soon, wait `work` longer; each of the D running sequences is held up once by its
 * prefill, and in each of its steps by its own decoding, for at most h tokens of the answer. Every term is that
 * instance's own: one price for the fleet piles requests onto the fast kind.
 */
export function scoreCandidate(
  request: RoutingRequest,
  candidate: CandidateState,
  prediction: Prediction,
  prior: PriorEstimate,
  objective: Objective,
  weights: ChoiceWeights,
): number {
  const { c3, c4 } = candidate.report.law;
  const { decoding } = candidate;
  const rho = Math.min(RHO_MAX, candidate.workRatio);
  const pressure = prior.kvPressure;
  const queue = (weights.queue * (candidate.waiting + candidate.prefilling) + weights.busy * rho) / (1 - rho);
  const price = queue + weights.decode * decoding + weights.kv * Math.min(2, pressure);
  const slowed =
    weights.decode * decoding * (c3 + c4 * request.promptTokens) * Math.min(weights.paceTokens, request.outputTokens);
  const blocked =
    weights.block * Math.max(0, pressure - BLOCK_FROM) * (uncachedTokens(request, candidate) / 1000) * prior.baseMs;
  return objective.costMs(prediction, request) + prior.workMs * price + slowed + blocked;
}
