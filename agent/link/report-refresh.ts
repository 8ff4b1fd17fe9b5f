import type { Clock, Timer } from '../../shared/env.ts';
import type { FaultLog } from '../../shared/fault-log.ts';
import type { Instances, InstanceView } from '../entry/instances.ts';
import { MAX_REPORT_BYTES, openReports } from '../wire/report-wire.ts';

export const REPORT_PATH = '/lodestar/report';

const TICK_MS = 50;
/** With the brain's stream alive, doors are asked only to measure the link and when the stream has dried up. */
const QUIET_MS = 1500;
const LINK_PROBE_MS = 5000;
const TIMEOUT_MS = 1000;

/**
 * Keeps the reports of remote doors fresh without the brain: one that is older than `reportRefreshMs` (with the brain
 * connected: 1.5 s) is fetched from its door, one fetch per door at a time. The round trip is the link time.
 */
export class ReportRefresh {
  private readonly instances: Instances;
  private readonly clock: Clock;
  private readonly token: string;
  private readonly refreshMs: number;
  private readonly faults: FaultLog;
  private readonly brainConnected: () => boolean;
  private readonly busy = new Set<string>();
  private readonly askedMs = new Map<string, number>();
  private readonly timer: Timer;
  private readonly abort = new AbortController();

  constructor(
    instances: Instances,
    clock: Clock,
    token: string,
    refreshMs: number,
    faults: FaultLog,
    brainConnected: () => boolean,
  ) {
    this.faults = faults;
    this.instances = instances;
    this.clock = clock;
    this.token = token;
    this.refreshMs = refreshMs;
    this.brainConnected = brainConnected;
    this.timer = clock.every(TICK_MS, () => this.tick());
  }

  close(): void {
    this.timer.cancel();
    this.abort.abort();
  }

  private tick(): void {
    const nowMs = this.clock.nowMs();
    const maxAgeMs = this.brainConnected() ? Math.max(QUIET_MS, this.refreshMs) : this.refreshMs;
    for (const view of this.instances.views.values()) {
      if (view.local || this.busy.has(view.doorUrl)) continue;
      const askedMs = this.askedMs.get(view.doorUrl) ?? -Infinity;
      const stale = nowMs - view.describesMs > maxAgeMs && nowMs - askedMs >= this.refreshMs;
      if (stale || nowMs - askedMs >= LINK_PROBE_MS) void this.fetch(view, nowMs);
    }
    if (this.askedMs.size > this.instances.views.size) this.forgetDoors();
  }

  /** Doors behind which no instance is known any more. */
  private forgetDoors(): void {
    const known = new Set([...this.instances.views.values()].map(({ doorUrl }) => doorUrl));
    for (const doorUrl of this.askedMs.keys()) if (!known.has(doorUrl)) this.askedMs.delete(doorUrl);
  }

  private async fetch(view: InstanceView, startMs: number): Promise<void> {
    const { doorUrl } = view;
    this.busy.add(doorUrl);
    this.askedMs.set(doorUrl, startMs);
    const timeout = new AbortController();
    const timer = this.clock.after(TIMEOUT_MS, () => timeout.abort());
    try {
      const signal = AbortSignal.any([this.abort.signal, timeout.signal]);
      const answer = await this.instances
        .upstream(view)
        .get(REPORT_PATH, { authorization: `Bearer ${this.token}` }, signal, MAX_REPORT_BYTES);
      if (answer.status !== 200) return;
      const roundTripMs = this.clock.nowMs() - startMs;
      for (const report of openReports(answer.body, (fault) => this.faults.note(doorUrl, fault)))
        this.instances.applyReport(report, roundTripMs / 2);
      for (const one of this.instances.views.values())
        if (!one.local && one.doorUrl === doorUrl) this.instances.noteLink(one, roundTripMs);
    } catch {
      // The door cannot be reached: its reports age, and the stale guard and the breaker do the rest.
    } finally {
      timer.cancel();
      this.busy.delete(doorUrl);
    }
  }
}
