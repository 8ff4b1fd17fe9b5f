import type { Command } from 'commander';
import { startBrain } from '../brain/main.ts';
import { makeLog, realClock } from '../shared/env.ts';
import { addConfigFlags, type ConfigFlags, configFromFlags } from './config-flags.ts';

/** `lodestar brain`: collects what agents observe, learns, and publishes routing tables. Prints its URL as JSON once it listens. */
export function addBrain(program: Command): void {
  addConfigFlags(program.command('brain').description('collect what agents observe, learn, and publish routing tables'), 'brain').action(run);
}

async function run(flags: ConfigFlags): Promise<void> {
  const config = configFromFlags(flags, 'brain');
  const log = makeLog('lodestar-brain', config.logLevel);
  const brain = await startBrain(config, { clock: realClock, rng: Math.random, log });
  process.stdout.write(`${JSON.stringify({ listening: brain.url })}\n`);
  let closing = false;
  const stop = (signal: string): void => {
    if (closing) return;
    closing = true;
    log.info(`${signal}: closing`);
    void brain.close().then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'did not close cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', () => stop('SIGTERM'));
  process.on('SIGINT', () => stop('SIGINT'));
}
