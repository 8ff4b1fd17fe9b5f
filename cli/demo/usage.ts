import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';

/** Clock ticks a second in /proc/PID/stat: 100 on every Linux that Node runs on. */
const TICKS = 100;

/** CPU time so far and memory now. */
export interface Usage {
  atMs: number;
  /** Busy time of all cores of the machine, whoever used them. */
  hostBusyMs: number;
  /** By process, where the system tells (Linux). */
  processes: Record<string, { cpuMs: number; rssMb: number }>;
}

/** What was used between two readings, in cores; memory as of the later one. */
export interface UsageSpan {
  cores: number;
  hostBusyCores: number;
  processes: Record<string, { cores: number; rssMb: number }>;
}

/** Reads the clocks of the machine and of these processes, and of this one as `demo`. */
export function readUsage(processes: readonly { name: string; pid: number }[]): Usage {
  const times = cpus().map((cpu) => cpu.times);
  const hostBusyMs = times.reduce((sum, time) => sum + time.user + time.sys + time.nice + time.irq, 0);
  const read = [...processes, { name: 'demo', pid: process.pid }].flatMap(
    ({ name, pid }): [string, { cpuMs: number; rssMb: number }][] => {
      const one = readProcess(pid);
      return one ? [[name, one]] : [];
    },
  );
  return { atMs: performance.now(), hostBusyMs, processes: Object.fromEntries(read) };
}

/** Mean use between two readings. */
export function usageBetween(earlier: Usage, later: Usage): UsageSpan {
  const spanMs = Math.max(1, later.atMs - earlier.atMs);
  const processes = Object.entries(later.processes).map(
    ([name, { cpuMs, rssMb }]): [string, { cores: number; rssMb: number }] => {
      return [name, { cores: (cpuMs - (earlier.processes[name]?.cpuMs ?? 0)) / spanMs, rssMb }];
    },
  );
  return {
    cores: cpus().length,
    hostBusyCores: (later.hostBusyMs - earlier.hostBusyMs) / spanMs,
    processes: Object.fromEntries(processes),
  };
}

/** Own CPU time and resident memory of a process; undefined where there is no /proc, or the process is gone. */
function readProcess(pid: number): { cpuMs: number; rssMb: number } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold spaces: fields are counted from behind it (proc(5): utime is 14, stime 15).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const rssKb = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0);
    return { cpuMs: ((Number(fields[11]) + Number(fields[12])) * 1000) / TICKS, rssMb: rssKb / 1024 };
  } catch {
    return undefined;
  }
}
