import type { Command } from 'commander';
import { startBrain } from '../brain/main.ts';
import { makeLog, realClock } from '../shared/env.ts';
import { guardedClock } from '../shared/guarded-clock.ts';
import { guardProcess } from '../shared/process-guard.ts';
import { addConfigFlags, type ConfigFlags, configFromFlags } from './config-flags.ts';
import { runService } from './service.ts';

/** `lodestar brain`: collects what agents observe, learns, and publishes routing tables. */
export function addBrain(program: Command): void {
  const command = program
    .command('brain')
    .description('Run the brain: collect what agents observe, learn, publish routing tables');
  addConfigFlags(command, 'brain').action((flags: ConfigFlags) =>
    runService(async () => {
      const config = configFromFlags(flags, 'brain');
      const log = makeLog('lodestar-brain', config.logLevel);
      guardProcess(log, realClock, process);
      const brain = await startBrain(config, { clock: guardedClock(realClock, log), rng: Math.random, log });
      return { url: brain.url, stop: () => brain.close(), kill: () => brain.close() };
    }),
  );
}
