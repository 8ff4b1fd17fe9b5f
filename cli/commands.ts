import type { Command } from 'commander';
import { addAgent } from './agent.ts';
import { addBrain } from './brain.ts';
import { addConfig } from './config.ts';
import { addDemo } from './demo.ts';
import { addEngine } from './engine.ts';
import { addFit } from './fit.ts';
import { addReplay } from './replay.ts';
import { addSim } from './sim.ts';
import { addStatus } from './status.ts';

/** Every command, one file each: a function that adds itself to the program. */
export const commands: readonly ((program: Command) => void)[] = [
  addAgent,
  addBrain,
  addConfig,
  addDemo,
  addEngine,
  addFit,
  addReplay,
  addSim,
  addStatus,
];
