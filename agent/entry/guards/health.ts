import type { Guard } from './guard.ts';

/** The engine answers its health check and is awake, by its door's word. */
export const health: Guard = {
  name: 'health',
  describe: 'the engine is up',
  yields: 'never',
  allows: (view) => view.report?.health === 'up',
};
