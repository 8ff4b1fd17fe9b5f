import type { PolicyName } from '../../shared/choice/policies/index.ts';
import type { LoadOutcome, LoadProgress } from '../../sim/workloads/index.ts';
import type { FleetCounters } from './counters.ts';
import type { BrainView } from './fleet-client.ts';

/** One phase as far as it has got. */
export interface PhaseState {
  policy: PolicyName;
  progress: LoadProgress;
  /** Of successful requests, as clients see it. */
  ttftsMs: number[];
  promptTokens: number;
  cachedTokens: number;
  /** Counted by the fleet in this phase; undefined before the first look. */
  counters: FleetCounters | undefined;
}

/** What the live view shows. */
export interface DemoState {
  /** ms since the command began */
  elapsedMs: number;
  /** What happens now, in words. */
  step: string;
  /** Processes that listen, of all. */
  ready: number;
  processes: number;
  phases: readonly [PhaseState, PhaseState];
  /** Index into `phases`; undefined before the first. */
  current: 0 | 1 | undefined;
  instances: readonly { id: string; gpu: string }[];
  brain: BrainView | undefined;
  /** ms from the start of the first phase to the first trusted verdict */
  trustedAfterMs: number | undefined;
}

/** A phase that has not begun. */
export function newPhase(policy: PolicyName, planned: number): PhaseState {
  const progress = { planned, sent: 0, inFlight: 0, succeeded: 0, failed: 0, elapsedMs: 0 };
  return { policy, progress, ttftsMs: [], promptTokens: 0, cachedTokens: 0, counters: undefined };
}

/** Books the end of a request. */
export function noteOutcome(phase: PhaseState, outcome: LoadOutcome): void {
  if (outcome.kind !== 'ok') return;
  if (outcome.ttftMs !== undefined) phase.ttftsMs.push(outcome.ttftMs);
  phase.promptTokens += outcome.promptTokens ?? 0;
  phase.cachedTokens += outcome.cachedTokens ?? 0;
}
