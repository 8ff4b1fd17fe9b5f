import type { Guard } from './guard.ts';

/** The link from this entry to the door works: a door that this entry cannot reach may still look well to the brain. */
export const breaker: Guard = {
  name: 'breaker',
  describe: 'the link has not failed lately',
  yields: 'panic',
  allows: (view) => view.breaker.state !== 'open',
};
