import type { Figure } from '../figure.ts';
import type { FaultRig } from '../rig.ts';

/** One fault, brought about before real servers and real agents: gives its figures. */
export type Scenario = (rig: FaultRig) => Promise<Figure[]>;
