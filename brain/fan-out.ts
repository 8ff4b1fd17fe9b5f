import { encode } from '../shared/codec.ts';
import type { Clock, Timer } from '../shared/env.ts';
import type { InstanceReport } from '../shared/instance.ts';
import type { BrainMessage } from '../shared/protocol.ts';
import type { Peer } from './connection.ts';

/**
 * Changes that come within this of the last batch wait and go together; one that comes later goes at once: news is
 * worth most when fresh.
 */
export const BATCH_MS = 20;

export interface FanOutSource {
  report(instance: string): InstanceReport | undefined;
  reports(): InstanceReport[];
  broadcast(message: BrainMessage, owe: (peer: Peer) => void): void;
}

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

  /** The whole state as of the last batch and later; the next batch follows it without a gap. */
  sendAll(peer: Peer): void {
    peer.owed.state = false;
    peer.send(
      encode({
        t: 'state',
        seq: this.seq,
        full: true,
        reports: this.source.reports(),
        gone: [],
      } satisfies BrainMessage),
    );
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
    this.seq += 1;
    this.source.broadcast(
      { t: 'state', seq: this.seq, full: false, reports, gone },
      (peer) => (peer.owed.state = true),
    );
  }
}
