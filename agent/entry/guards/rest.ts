import type { Guard } from './guard.ts';

/** The instance has not said that it is full, or the time is over for which it asked to be left alone. */
export const rest: Guard = {
  name: 'rest',
  describe: 'it has not just answered 429 or 503',
  yields: 'never',
  allows: (view, { nowMs }) => view.rest === undefined || nowMs >= view.rest.untilMs,
};
