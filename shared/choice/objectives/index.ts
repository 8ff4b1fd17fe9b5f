import type { RoutingRequest } from '../../candidate.ts';
import type { ChoiceWeights, Prediction } from '../score.ts';
import { e2e } from './e2e.ts';
import { goodput } from './goodput.ts';
import { ttft } from './ttft.ts';

/** What the operator wants to be small: composed at decision time from predicted latencies, so that changing it needs no retraining. */
export interface Objective {
  readonly name: string;
  readonly describe: string;
  /** weights of the price that suit this objective */
  readonly weights: ChoiceWeights;
  /** cost of the predicted outcome to the request itself, ms */
  costMs(prediction: Prediction, request: RoutingRequest): number;
}

export const objectives = { ttft, e2e, goodput } as const satisfies Record<string, Objective>;

export type ObjectiveName = keyof typeof objectives;
export const OBJECTIVE_NAMES = Object.keys(objectives) as [ObjectiveName, ...ObjectiveName[]];
