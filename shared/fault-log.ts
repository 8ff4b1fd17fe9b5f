import type { Log } from './env.ts';
import type { Fault } from './report.ts';

/** Faults that are said in the log; the rest are only counted. */
const SAID_MAX = 1024;
const NEWEST_MAX = 8;

/** A fault and who sent it. */
export interface KeptFault extends Fault {
  from: string;
}

/**
 * What peers sent that does not fit and is left out. All of it is counted, the newest are kept for status pages, and
 * each field of each sender and instance is said once in the log: a peer that is wrong is wrong in every message.
 */
export class FaultLog {
  count = 0;
  private readonly log: Log;
  private readonly said = new Set<string>();
  private newestFaults: KeptFault[] = [];

  constructor(log: Log) {
    this.log = log;
  }

  note(from: string, { instance, problem }: Fault): void {
    this.count += 1;
    const key = `${from} ${instance ?? ''} ${problem.split(':', 1)[0] ?? ''}`;
    this.newestFaults = [
      ...this.newestFaults.filter((one) => one.from !== from || one.instance !== instance || one.problem !== problem),
      { from, instance, problem },
    ].slice(-NEWEST_MAX);
    if (this.said.has(key) || this.said.size >= SAID_MAX) return;
    this.said.add(key);
    this.log.warn({ from, instance }, `left out what does not fit the protocol: ${problem}`);
  }

  /** For a status page. */
  status(): { count: number; newest: readonly KeptFault[] } {
    return { count: this.count, newest: this.newestFaults };
  }
}
