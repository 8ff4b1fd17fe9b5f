import type { Command } from 'commander';

export function addSimMatrix(sim: Command): void {
  sim.command('matrix [file]');
}
