import { encode } from '../shared/codec.ts';
import type { Clock, Timer } from '../shared/env.ts';
import type { InstanceReport } from '../shared/instance.ts';
import type { BrainMessage } from '../shared/protocol.ts';
import type { Peer } from './connection.ts';

/** Longest time a change waits for others, so that many reports make one frame. */
export const BATCH_MS = 50;

export interface FanOutSource {
  report(instance: string): InstanceReport | undefined;
  reports(): InstanceReport[];
  broadcast(message: BrainMessage, owe: (peer: Peer) => void): void;
}

/**
 * Passes state on to every agent: changes in batches, encoded once for all; the whole state to one that joins, asks, or did not read for a
 * while. `seq` counts the batches, so that an agent sees a gap and asks.
 */
export class FanOut {
  private readonly clock: Clock;
  private readonly source: FanOutSource;
  private readonly dirty = new Set<string>();
  private readonly gone = new Set<string>();
  private seq = 0;
  private timer: Timer | undefined;

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
    peer.send(encode({ t: 'state', seq: this.seq, full: true, reports: this.source.reports(), gone: [] } satisfies BrainMessage));
  }

  close(): void {
    this.timer?.cancel();
  }

  private schedule(): void {
    this.timer ??= this.clock.after(BATCH_MS, () => this.flush());
  }

  private flush(): void {
    this.timer = undefined;
    const reports = [...this.dirty].flatMap((instance) => this.source.report(instance) ?? []);
    const gone = [...this.gone];
    this.dirty.clear();
    this.gone.clear();
    this.seq += 1;
    this.source.broadcast({ t: 'state', seq: this.seq, full: false, reports, gone }, (peer) => (peer.owed.state = true));
  }
}
