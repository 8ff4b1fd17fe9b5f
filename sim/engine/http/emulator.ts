import type { Clock } from '../../../shared/env.ts';
import type { Engine } from '../engine.ts';
import type { EngineMetrics } from '../metrics.ts';
import type { Faults } from './faults.ts';

/** What the emulator calls itself; nothing may mistake it for a real vLLM. */
export const EMULATED_VERSION = '0.29.0+lodestar-emulated';

/** What the route groups share. */
export interface Emulator {
  readonly engine: Engine;
  readonly metrics: EngineMetrics;
  readonly clock: Clock;
  readonly faults: Faults;
  readonly model: string;
  readonly gpu: string;
  readonly maxModelLen: number;
  /** Physical blocks, the null block included. */
  readonly blockCount: number;
  readonly startedWallMs: number;
  /** HTTP generation requests in flight, queued ones included. */
  load: number;
  /** Ends the process (or, in tests, the server) with all its connections. */
  exit(): void;
}
