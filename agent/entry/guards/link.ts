import { LINK_DOWN } from '../instances.ts';
import type { Guard } from './guard.ts';

/** The door answers this entry's own questions, whatever the brain says of it. */
export const link: Guard = {
  name: 'link',
  describe: 'the door answers this entry',
  yields: 'panic',
  allows: (view) => view.linkMissing < LINK_DOWN,
};
