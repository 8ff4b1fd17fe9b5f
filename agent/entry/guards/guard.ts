import type { RoutingRequest } from '../../../shared/candidate.ts';
import type { InstanceView } from '../instances.ts';

export interface GuardContext {
  request: RoutingRequest;
  nowMs: number;
  staleAfterMs: number;
}

/**
 * When a rule gives way because it leaves nobody: an answer that may fail beats none. `soft` ones first; then, in a `panic`, the breakers: where they exclude
 * every instance that is up, they say nothing of any one.
 */
export type Yields = 'never' | 'soft' | 'panic';

/** A rule that narrows the candidates. */
export interface Guard {
  readonly name: string;
  readonly describe: string;
  readonly yields: Yields;
  allows(view: InstanceView, context: GuardContext): boolean;
}
