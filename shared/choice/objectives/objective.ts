import type { RoutingRequest } from '../../candidate.ts';

/**
 * Weights of what a request does to others; they travel in the routing table. Where they come from:
 * docs/decisions/0006-choice.md.
 */
export interface ChoiceWeights {
  /** k: requests that queue behind this one, those there now */
  queue: number;
  /** r: those that will come while it is prefilled */
  busy: number;
  /** w: milliseconds by which running sequences end later, against one of TTFT */
  decode: number;
  /** tokens of an answer, at most, whose pace counts */
  paceTokens: number;
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

/**
 * What the operator wants to be small: composed at decision time from predicted latencies, so that changing it needs no
 * retraining.
 */
export interface Objective {
  readonly name: string;
  readonly describe: string;
  /** weights of the price that suit this objective */
  readonly weights: ChoiceWeights;
  /** cost of the predicted outcome to the request itself, ms */
  costMs(prediction: Prediction, request: RoutingRequest): number;
}
