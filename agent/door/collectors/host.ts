import { currentLoad, mem } from 'systeminformation';
import type { Env } from '../../../shared/env.ts';
import { PeriodicCollector } from './collector.ts';
import { shareOf } from './odd-values.ts';

/**
 * Load of the host, each 0 to 1: busy share of all cores, and memory that is not available to new work. Undefined: not
 * known.
 */
export interface HostSample {
  cpuRatio: number | undefined;
  memUsedRatio: number | undefined;
}

/**
 * CPU and memory of the host by systeminformation. Its `graphics()` is never called: it runs nvidia-smi synchronously
 * and stops the event loop meanwhile.
 */
export class HostCollector extends PeriodicCollector<HostSample> {
  constructor(periodMs: number, env: Pick<Env, 'clock' | 'log'>) {
    super('host', periodMs, env, async (note) => {
      const [load, memory] = await Promise.all([currentLoad(), mem()]);
      return {
        cpuRatio: shareOf('load', load.currentLoad / 100, note),
        memUsedRatio: shareOf('memory', 1 - memory.available / memory.total, note),
      };
    });
  }
}
