import { readFile } from 'node:fs/promises';
import type { Env } from '../../../shared/env.ts';
import { LodestarError } from '../../../shared/errors.ts';
import { PeriodicCollector } from './collector.ts';

/**
 * Load of the host, each 0 to 1: busy share of all cores, and memory that is not available to new work. Undefined: not
 * known.
 */
export interface HostSample {
  cpuRatio: number | undefined;
  memUsedRatio: number | undefined;
}

/** Time that all cores have spent since the host started, in the kernel's ticks. */
export interface CpuTimes {
  busy: number;
  total: number;
}

/**
 * CPU and memory of the host, from Linux's /proc. Read here, since systeminformation runs a shell for the first of
 * them and stops the event loop meanwhile, for half a second where cores are busy.
 */
export class HostCollector extends PeriodicCollector<HostSample> {
  constructor(periodMs: number, env: Pick<Env, 'clock' | 'log'>) {
    let before: CpuTimes = { busy: 0, total: 0 };
    super('host', periodMs, env, async () => {
      const [stat, memory] = await Promise.all([readFile('/proc/stat', 'utf8'), readFile('/proc/meminfo', 'utf8')]);
      const now = cpuTimes(stat);
      const ticks = now.total - before.total;
      const cpuRatio = ticks > 0 ? Math.max(0, Math.min(1, (now.busy - before.busy) / ticks)) : 0;
      before = now;
      return { cpuRatio, memUsedRatio: memUsedRatio(memory) };
    });
  }
}

/** The first line of /proc/stat: user, nice, system, idle, iowait, irq, softirq, steal (proc_stat(5)). */
export function cpuTimes(stat: string): CpuTimes {
  const times = /^cpu +(.*)$/m.exec(stat)?.[1]?.split(' ').slice(0, 8).map(Number);
  if (!times || times.length < 4 || times.some(Number.isNaN)) {
    throw new LodestarError('UPSTREAM_FAILED', '/proc/stat has no line of all cores');
  }
  const total = times.reduce((sum, time) => sum + time, 0);
  return { busy: total - (times[3] as number) - (times[4] ?? 0), total };
}

/** Share of memory that is not available, by /proc/meminfo (proc_meminfo(5)). */
export function memUsedRatio(meminfo: string): number {
  const kib = (name: string): number => Number(new RegExp(`^${name}: +(\\d+) kB$`, 'm').exec(meminfo)?.[1]);
  const total = kib('MemTotal');
  const available = kib('MemAvailable');
  if (!(total > 0) || !(available >= 0)) {
    throw new LodestarError('UPSTREAM_FAILED', '/proc/meminfo lacks MemTotal or MemAvailable');
  }
  return Math.max(0, Math.min(1, 1 - available / total));
}
