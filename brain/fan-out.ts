import { encode } from '../shared/codec.ts';
import type { Clock, Timer } from '../shared/env.ts';
import type { InstanceReport } from '../shared/instance.ts';
import { type BrainMessage, MAX_REPORTS_PER_FRAME, PROTOCOL_VERSION } from '../shared/protocol.ts';
import { NARROW_NAME_BOUNDS, narrowReport } from '../shared/report.ts';
import { framesOf } from '../shared/report-frames.ts';
import type { Peer } from './connection.ts';

/**
 * Changes that come within this of the last batch wait and go together; one that comes later goes at once: news is
 * worth most when fresh.
 */
export const BATCH_MS = 20;

export interface FanOutSource {
  report(instance: string): InstanceReport | undefined;
  reports(): InstanceReport[];
  /** `earlier`: the message for agents of earlier protocols */
  broadcast(message: BrainMessage, owe: (peer: Peer) => void, earlier: BrainMessage): void;
}

type StateMessage = Extract<BrainMessage, { t: 'state' }>;

/**
 * Passes state on to every agent: changes in batches, encoded once for all; the whole state to one that joins, asks, or
 * did not read for a while. `seq` counts the batches, so that an agent sees a gap and asks.
 */
export class FanOut {
  private readonly clock: Clock;
  private readonly source: FanOutSource;
  private readonly dirty = new Set<string>();
  private readonly gone = new Set<string>();
  private seq = 0;
  private timer: Timer | undefined;
  private flushedMs = -Infinity;

  constructor(clock: Clock, source: FanOutSource) {
    this.clock = clock;
    this.source = source;
  }

  instanceChanged(instance: string): void {
    this.gone.delete(instance);
    this.dirty.add(instance);
    this.schedule();
  }

  instanceGone(instance: string): void {
    this.dirty.delete(instance);
    this.gone.add(instance);
    this.schedule();
  }

  /**
   * The whole state as of the last batch and later; the next batch follows it without a gap. Every part says `full`: an
   * agent of an earlier protocol takes each for the whole, and keeps what an earlier part has told, which it has heard
   * of lately.
   */
  sendAll(peer: Peer): void {
    peer.owed.state = false;
    const frames = framesOf(this.source.reports());
    for (const [part, reports] of frames.entries()) {
      const message: StateMessage = {
        t: 'state',
        seq: this.seq,
        full: true,
        part,
        parts: frames.length,
        reports,
        gone: [],
      };
      peer.send(encode(peer.hello.protocol < PROTOCOL_VERSION ? narrowed(message) : message));
    }
  }

  close(): void {
    this.timer?.cancel();
  }

  private schedule(): void {
    const waitMs = Math.max(0, this.flushedMs + BATCH_MS - this.clock.nowMs());
    this.timer ??= this.clock.after(waitMs, () => this.flush());
  }

  private flush(): void {
    this.timer = undefined;
    this.flushedMs = this.clock.nowMs();
    const reports = [...this.dirty].flatMap((instance) => this.source.report(instance) ?? []);
    const gone = [...this.gone];
    this.dirty.clear();
    this.gone.clear();
    for (const frame of framesOf(reports)) this.broadcast(frame, gone.splice(0, MAX_REPORTS_PER_FRAME));
    while (gone.length > 0) this.broadcast([], gone.splice(0, MAX_REPORTS_PER_FRAME));
  }

  private broadcast(reports: InstanceReport[], gone: string[]): void {
    this.seq += 1;
    const message: StateMessage = { t: 'state', seq: this.seq, full: false, part: 0, parts: 1, reports, gone };
    this.source.broadcast(message, (peer) => (peer.owed.state = true), narrowed(message));
  }
}

/** The message for an agent of an earlier protocol; the same one where it fits. */
function narrowed(message: StateMessage): StateMessage {
  const reports = message.reports.map((report) => narrowReport(report, NARROW_NAME_BOUNDS));
  return reports.every((report, i) => report === message.reports[i]) ? message : { ...message, reports };
}
