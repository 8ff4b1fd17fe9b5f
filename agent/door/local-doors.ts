import type { DoorInstance } from './door-instance.ts';
import type { EntryWatch } from './life/entry-watch.ts';
import type { Hop } from '../wire/hop.ts';
import type { OpenAttempts } from './open-attempts.ts';

/** What this agent is the door of, and what runs there. */
export interface LocalDoors {
  /** by instance */
  readonly byId: ReadonlyMap<string, DoorInstance>;
  readonly open: OpenAttempts;
  /** hops that are here, from their headers on: their bodies may take long */
  readonly hops: Set<Hop>;
  readonly entries: EntryWatch;
}
