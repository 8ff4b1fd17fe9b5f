import type { Command } from 'commander';
import { addBrain } from './brain.ts';
import { addConfig } from './config.ts';

/** Every command, one file each: a function that adds itself to the program. */
export const commands: readonly ((program: Command) => void)[] = [
  addBrain,
  addConfig,
];
