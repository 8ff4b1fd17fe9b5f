import type { RoutingRequest } from '../../../shared/candidate.ts';
import type { InstanceView } from '../instances.ts';
import { breaker } from './breaker.ts';
import { drain } from './drain.ts';
import { fits } from './fits.ts';
import { health } from './health.ts';
import { model } from './model.ts';
import { stale } from './stale.ts';

export interface GuardContext {
  request: RoutingRequest;
  nowMs: number;
  staleAfterMs: number;
}

/** A rule that narrows the candidates. A `soft` one gives way when nobody is left: an answer that may fail beats none. */
export interface Guard {
  readonly name: string;
  readonly describe: string;
  readonly soft: boolean;
  allows(view: InstanceView, context: GuardContext): boolean;
}

export const guards: readonly Guard[] = [health, drain, model, breaker, stale, fits];
export const hardGuards: readonly Guard[] = guards.filter((guard) => !guard.soft);
