import type { Guard } from './guard.ts';

/** The door takes new requests. */
export const drain: Guard = {
  name: 'drain',
  describe: 'the agent is not draining',
  yields: 'never',
  allows: (view) => view.report?.draining === false,
};
