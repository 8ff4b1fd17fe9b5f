import type { Command } from 'commander';
export function addFit(_p: Command): void {}
