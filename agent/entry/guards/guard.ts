import type { RoutingRequest } from '../../../shared/candidate.ts';
import type { InstanceView } from '../instances.ts';

/** What a guard may look at besides the instance. */
export interface GuardContext {
  request: RoutingRequest;
  /** clock ms */
  nowMs: number;
  staleAfterMs: number;
}

/**
 * A rule that narrows the candidates. A `soft` one gives way when nobody is left: an answer that may fail beats none.
 */
export interface Guard {
  readonly name: string;
  readonly describe: string;
  readonly soft: boolean;
  allows(view: InstanceView, context: GuardContext): boolean;
}
