import type { LodestarError } from '../../shared/errors.ts';

/**
 * How an attempt can end other than by its whole answer. The facts only: whose fault it is decides
 * `agent/entry/culprit.ts`. A door names its own ending in the failure header, so the same words are used on both sides
 * of a hop.
 */
export const FAILURES = [
  /** no connection came about: refused, timed out, no route */
  'unreachable',
  /** the connection broke before the answer was whole */
  'reset',
  /** the engine refuses connections, reports itself dead, or has restarted since */
  'gone',
  /** nothing at all has come from the engine for `agent.suspectAfterMs` */
  'silent',
  /** the engine answers its checks, but nothing in it has moved for `agent.stuckAfterMs` */
  'stuck',
  /** the engine no longer counts the request among those that run or wait */
  'lost',
  /** the door does not hold the request, or no longer answers its entry */
  'link',
  /** the agent that got the hop is not the door of the instance */
  'unknown-instance',
  /** an exception of our own while the attempt was sent or read */
  'own-fault',
] as const;

export type Failure = (typeof FAILURES)[number];

/** A failure as it is passed on: the fact and its cause. */
export interface AttemptFailure {
  readonly failure: Failure;
  readonly error: LodestarError;
}

/** The failure that a header names; an older door's words count as a broken connection to its engine. */
export function failureNamed(name: string): Failure {
  return FAILURES.find((one) => one === name) ?? 'reset';
}
