import type { Clock, Log } from '../shared/env.ts';
import type { InstanceReport } from '../shared/instance.ts';
import type { RosterEntry } from '../shared/table.ts';
import type { Counters } from './counters.ts';
import { isSameEntry, rosterEntry } from './roster.ts';

/**
 * An instance is gone when nothing was heard of it for this long: its door may still be reachable while its link to the
 * brain is down.
 */
export const GONE_AFTER_MS = 30_000;
const INSTANCES_MAX = 4096;
const REFUSALS_LOGGED_MAX = 1024;

interface InstanceRecord {
  report: InstanceReport;
  receivedMs: number;
  agent: string;
  /** boot epoch of the agent that sent the report */
  epoch: number;
  entry: RosterEntry;
}

export interface RegistryListener {
  changed(instance: string): void;
  gone(instance: string): void;
  /** who is in the fleet, where, or what it serves is no longer what it was */
  rosterChanged(): void;
}

/**
 * Every instance of the fleet with its last report. One agent holds an instance; the same id claimed by a second one is
 * refused.
 */
export class Registry {
  private readonly clock: Clock;
  private readonly log: Log;
  private readonly counters: Counters;
  private readonly listener: RegistryListener;
  private readonly records = new Map<string, InstanceRecord>();
  private readonly refusalsLogged = new Set<string>();

  constructor(clock: Clock, log: Log, counters: Counters, listener: RegistryListener) {
    this.clock = clock;
    this.log = log;
    this.counters = counters;
    this.listener = listener;
  }

  /** Takes an agent's reports. An older one of an instance is ignored, unless the agent has started anew since. */
  update(agent: string, epoch: number, reports: readonly InstanceReport[]): void {
    let roster = false;
    for (const report of reports) {
      if (report.agent !== agent || !this.mayHold(report.instance, agent)) {
        this.refuse(report.instance, agent);
        continue;
      }
      const known = this.records.get(report.instance);
      if (known && known.epoch === epoch && !isNewer(report, known.report)) continue;
      if (!known && this.records.size >= INSTANCES_MAX) continue;
      const entry = rosterEntry(report);
      const isNews = !known || !isSameEntry(known.entry, entry);
      roster ||= isNews;
      this.records.set(report.instance, {
        report,
        receivedMs: this.clock.nowMs(),
        agent,
        epoch,
        entry: isNews ? entry : known.entry,
      });
      this.listener.changed(report.instance);
    }
    if (roster) this.listener.rosterChanged();
  }

  /** True if no other agent holds the instance. */
  mayHold(instance: string, agent: string): boolean {
    const holder = this.records.get(instance)?.agent;
    return holder === undefined || holder === agent;
  }

  /** Counts a claim that cannot be granted, and says it once. */
  refuse(instance: string, agent: string): void {
    this.counters.claimsRefused += 1;
    const claim = `${instance} ${agent}`;
    if (this.refusalsLogged.has(claim) || this.refusalsLogged.size >= REFUSALS_LOGGED_MAX) return;
    this.refusalsLogged.add(claim);
    const holder = this.records.get(instance)?.agent;
    this.log.warn(
      { instance, agent, holder },
      'two agents report an instance of the same id: the second is ignored; give each instance its own id',
    );
  }

  /** Forgets the instances that nothing was heard of. */
  expire(): void {
    const before = this.clock.nowMs() - GONE_AFTER_MS;
    let roster = false;
    for (const [instance, record] of this.records) {
      if (record.receivedMs > before) continue;
      this.records.delete(instance);
      this.log.warn({ instance, agent: record.agent }, 'instance is gone: nothing was heard of it');
      this.listener.gone(instance);
      roster = true;
    }
    if (roster) this.listener.rosterChanged();
  }

  /** The last report, aged by the time it was held here; undefined if the instance is unknown. */
  report(instance: string): InstanceReport | undefined {
    const record = this.records.get(instance);
    return record && this.aged(record);
  }

  reports(): InstanceReport[] {
    return [...this.records.values()].map((record) => this.aged(record));
  }

  roster(): RosterEntry[] {
    return [...this.records.values()]
      .map((record) => record.entry)
      .toSorted((a, b) => (a.instance < b.instance ? -1 : 1));
  }

  /** Agent that holds the instance. */
  holder(instance: string): string | undefined {
    return this.records.get(instance)?.agent;
  }

  /** Instances that an earlier boot of the agent reported last. */
  fromEarlierBoot(agent: string, epoch: number): string[] {
    return [...this.records]
      .filter(([, record]) => record.agent === agent && record.epoch !== epoch)
      .map(([instance]) => instance);
  }

  private aged(record: InstanceRecord): InstanceReport {
    return { ...record.report, ageMs: record.report.ageMs + this.clock.nowMs() - record.receivedMs };
  }
}

function isNewer(report: InstanceReport, known: InstanceReport): boolean {
  return report.incarnation > known.incarnation || (report.incarnation === known.incarnation && report.seq > known.seq);
}
