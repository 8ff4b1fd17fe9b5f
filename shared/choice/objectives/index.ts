import { e2e } from './e2e.ts';
import { goodput } from './goodput.ts';
import type { Objective } from './objective.ts';
import { ttft } from './ttft.ts';

export const objectives = { ttft, e2e, goodput } as const satisfies Record<string, Objective>;

export type ObjectiveName = keyof typeof objectives;
export const OBJECTIVE_NAMES = Object.keys(objectives) as [ObjectiveName, ...ObjectiveName[]];
