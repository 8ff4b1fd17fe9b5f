import { BLOCK_BYTES, type Fingerprint } from '../request/fingerprint.ts';
import type { Decision } from './decide.ts';
import type { Instances, InstanceView, Reservation } from './instances.ts';
import type { Expectation } from './cache-index/expectations.ts';

type PromptBlocks = Pick<Fingerprint, 'hashes' | 'bytes'>;

/** A place taken at an instance for one attempt. */
export interface Admission {
  view: InstanceView;
  seq: number;
  /**
   * The attempt is over: the place no longer counts. With `failed`, nor does the prompt that it would have brought into
   * the cache.
   */
  release(failed: boolean): void;
}

/**
 * Takes a place for the request at the chosen instance, in the same tick as the decision: the next decision of this
 * entry already counts it, and finds its prompt cached there (requests of a burst share a prefix), before the door has
 * reported either.
 */
export function admit(instances: Instances, decision: Decision, print: PromptBlocks): Admission {
  const { view } = decision;
  const seq = view.nextSeq++;
  const reservation: Reservation = { seq, promptTokens: decision.promptTokens, ownTokens: decision.ownTokens };
  if (!view.local) view.reservations.push(reservation);
  view.breaker.begin();
  const expectation = expect(instances, decision, print);
  let released = false;
  return {
    view,
    seq,
    release(failed) {
      if (released) return;
      released = true;
      const at = view.reservations.indexOf(reservation);
      if (at >= 0) view.reservations.splice(at, 1);
      if (expectation) view.expected.end(expectation, !failed);
    },
  };
}

/** Nothing is expected of a prompt that the door has cached to its end. */
function expect(
  { index }: Instances,
  { view, promptTokens }: Decision,
  { hashes, bytes }: PromptBlocks,
): Expectation | undefined {
  const last = hashes[hashes.length - 1];
  if (last === undefined || index.holds(view.id, last)) return undefined;
  const tokensPerBlock = (promptTokens * BLOCK_BYTES) / bytes;
  return view.expected.expect(hashes, Math.ceil((view.report?.limits.blockTokens ?? 0) / tokensPerBlock));
}
