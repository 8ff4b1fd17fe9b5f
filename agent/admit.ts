import type { Fingerprint } from './fingerprint.ts';
import type { Decision } from './decide.ts';
import type { Instances, InstanceView, Reservation } from './instances.ts';

/** A place taken at an instance for one attempt. */
export interface Admission {
  view: InstanceView;
  seq: number;
  /** The attempt is over: the place no longer counts. With `failed`, nor do the blocks that it would have brought. */
  release(failed: boolean): void;
}

/**
 * Takes a place for the request at the chosen instance, in the same tick as the decision: the next decision of this entry already counts it,
 * and finds its prompt cached there (requests of a burst share a prefix), before the door has reported either.
 */
export function admit(instances: Instances, decision: Decision, print: Pick<Fingerprint, 'hashes'>): Admission {
  const { view } = decision;
  const seq = view.nextSeq++;
  const reservation: Reservation = { seq, promptTokens: decision.promptTokens, ownTokens: decision.ownTokens };
  if (!view.local) view.reservations.push(reservation);
  view.breaker.begin();
  const expected: number[] = [];
  for (const hash of print.hashes) if (instances.index.add(view.id, hash)) expected.push(hash);
  let released = false;
  return {
    view,
    seq,
    release(failed) {
      if (released) return;
      released = true;
      const at = view.reservations.indexOf(reservation);
      if (at >= 0) view.reservations.splice(at, 1);
      if (failed) for (const hash of expected) instances.index.remove(view.id, hash);
    },
  };
}
