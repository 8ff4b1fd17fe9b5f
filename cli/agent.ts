import type { Command } from 'commander';
import { startAgent } from '../agent/main.ts';
import { retiredKeys } from '../shared/config/index.ts';
import { makeLog, realClock } from '../shared/env.ts';
import { guardedClock } from '../shared/guarded-clock.ts';
import { guardProcess } from '../shared/process-guard.ts';
import { addConfigFlags, configFromFlags, type ConfigFlags } from './config-flags.ts';
import { runService } from './service.ts';

/**
 * `lodestar agent`: the door of the local vLLM servers and an entry to the fleet. SIGTERM drains, a second signal stops
 * at once.
 */
export function addAgent(program: Command): void {
  const command = program
    .command('agent')
    .description('Run the agent: door of the local vLLM servers and entry to the fleet');
  addConfigFlags(command, 'agent').action((flags: ConfigFlags) =>
    runService(async () => {
      const config = configFromFlags(flags, 'agent');
      const log = makeLog('lodestar-agent', config.logLevel);
      for (const warning of retiredKeys(config)) log.warn(warning);
      guardProcess(log, realClock, process);
      const agent = await startAgent(config.agent, config.token, {
        clock: guardedClock(realClock, log),
        rng: Math.random,
        log,
      });
      log.info({ url: agent.url, instances: config.agent.instances.map((one) => one.url) }, 'the agent listens');
      return { url: agent.url, stop: () => agent.drain(), kill: () => agent.close() };
    }),
  );
}
