import type { Guard } from './guard.ts';

/**
 * The instance has not just said that it is full. A request that another one has refused is not offered to it all the
 * same.
 */
export const rest: Guard = {
  name: 'rest',
  describe: 'it has not just answered 429 or 503',
  yields: 'first-attempt',
  allows: (view, { nowMs }) => view.rest === undefined || nowMs >= view.rest.untilMs,
};
