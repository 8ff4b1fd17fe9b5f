import type { OutcomeStatus } from '../../shared/sample.ts';
import type { Failure } from '../wire/ending.ts';

/** Who caused the end of an attempt. */
export type Culprit = 'engine' | 'link' | 'request' | 'client' | 'ourselves' | 'nobody';

/** How an attempt ended: by an answer, by a failure on the way to it, or because nobody waits for it any more. */
export const ANSWER_ENDINGS = [
  /** the whole answer, with a status below 400 */
  'answered',
  /** a 4xx: the engine judges the request */
  'rejected',
  /** 401, 403 or 404, which may also be one engine's own (another key, an adapter that it has lost) */
  'denied',
  /** 429, or 503 of an engine that is up: full for the moment */
  'full',
  /** any other 5xx */
  'server-error',
  /** an error event within a stream of status 200 */
  'error-event',
] as const;
export const OWN_ENDINGS = [
  'client-left',
  /** it did not read for `agent.slowClientTimeoutMs` */
  'client-stalled',
  /** its own `x-request-timeout-ms` is over */
  'client-deadline',
  /** `agent.requestTimeoutMs` is over */
  'operator-deadline',
] as const;

export type Ending = (typeof ANSWER_ENDINGS)[number] | (typeof OWN_ENDINGS)[number] | Failure;

/** How the same request fared on another instance. */
export type Elsewhere = 'unknown' | 'alike' | 'well';

export interface Facts {
  readonly ending: Ending;
  /** bytes of the answer have gone to the client */
  readonly begun: boolean;
  /** its door is another agent */
  readonly remote: boolean;
  readonly elsewhere: Elsewhere;
  /** the engine has lately answered another request well */
  readonly works: boolean;
}

export interface Verdict {
  readonly culprit: Culprit;
  /** what the link's breaker is told; undefined: that its trial, if this was one, has shown nothing */
  readonly breaker: 'success' | 'failure' | undefined;
  /** the request may be tried on another instance */
  readonly retry: boolean;
  /** what the sample and the metrics say; only an `ok` one is a latency */
  readonly outcome: OutcomeStatus;
}

/** Whether the client or a limit of time ended it, and not what became of it. */
export function isLimit(ending: Ending): boolean {
  return OWN_ENDINGS.some((one) => one === ending);
}

/** Endings that the request itself may have caused: they are judged once it is known how it fares elsewhere. */
const SUSPECT: ReadonlySet<Ending> = new Set<Ending>(['denied', 'server-error', 'error-event', 'reset']);

/** Whether the verdict waits for how the request fares elsewhere. */
export function isSuspect(ending: Ending): boolean {
  return SUSPECT.has(ending);
}

/**
 * Decides who caused the end of an attempt, and with that what breaker, retry, trust, sample and metrics make of it.
 * The only place that does; docs/request-lifecycle.md lists every combination.
 */
export function judge(facts: Facts): Verdict {
  const { ending, begun, remote, elsewhere, works } = facts;
  const retry = !begun;
  switch (ending) {
    case 'answered':
      return { culprit: 'nobody', breaker: 'success', retry: false, outcome: 'ok' };
    case 'rejected':
      // Link and engine work: the engine has judged the request.
      return { culprit: 'request', breaker: 'success', retry: false, outcome: 'failed' };
    case 'full':
      return { culprit: 'nobody', breaker: undefined, retry, outcome: 'failed' };
    case 'denied':
      if (elsewhere === 'well') return { culprit: 'engine', breaker: 'failure', retry, outcome: 'failed' };
      return { culprit: 'request', breaker: undefined, retry: retry && elsewhere === 'unknown', outcome: 'failed' };
    case 'server-error':
    case 'error-event':
    case 'reset':
      // An engine that works and fails this request as another has done is not at fault. One that has answered nothing
      // well of late may be: then a third one is asked.
      if (works && (elsewhere === 'alike' || (elsewhere === 'unknown' && ending !== 'reset'))) {
        return { culprit: 'request', breaker: undefined, retry: retry && elsewhere === 'unknown', outcome: 'failed' };
      }
      return {
        culprit: ending === 'reset' && remote ? 'link' : 'engine',
        breaker: 'failure',
        retry,
        outcome: 'failed',
      };
    case 'unreachable':
      return { culprit: remote ? 'link' : 'engine', breaker: 'failure', retry, outcome: 'failed' };
    case 'gone':
      // The door's health report keeps requests away, and lets them in again: the breaker has no part in it.
      return { culprit: 'engine', breaker: undefined, retry, outcome: 'failed' };
    case 'silent':
    case 'stuck':
    case 'lost':
      return { culprit: 'engine', breaker: undefined, retry, outcome: 'timeout' };
    case 'link':
      return { culprit: 'link', breaker: 'failure', retry, outcome: 'timeout' };
    case 'unknown-instance':
    case 'own-fault':
      return { culprit: 'ourselves', breaker: undefined, retry, outcome: 'failed' };
    case 'client-left':
    case 'client-stalled':
    case 'client-deadline':
      return { culprit: 'client', breaker: undefined, retry: false, outcome: 'aborted' };
    case 'operator-deadline':
      return { culprit: 'nobody', breaker: undefined, retry: false, outcome: 'aborted' };
  }
}
