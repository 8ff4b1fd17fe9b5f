import type { Guard } from './guard.ts';

/** The instance's state is fresh enough to be believed, and its door has answered the last question of this entry. */
export const stale: Guard = {
  name: 'stale',
  describe: 'the state is fresh',
  yields: 'soft',
  allows: (view, { nowMs, staleAfterMs }) => nowMs - view.describesMs <= staleAfterMs && view.linkMissing === 0,
};
