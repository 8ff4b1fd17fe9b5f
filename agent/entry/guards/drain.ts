import type { Guard } from './guard.ts';

/** The door takes new requests. */
export const drain: Guard = {
  name: 'drain',
  describe: 'the agent is not draining',
  soft: false,
  allows: (view) => view.report?.draining === false,
};
