import { encode } from '../shared/codec.ts';
import type { Env } from '../shared/env.ts';
import type { BrainMessage } from '../shared/protocol.ts';
import type { Sample } from '../shared/sample.ts';
import type { Peer } from './connection.ts';
import type { Counters } from './counters.ts';
import type { SampleBatch } from './sample-batch.ts';
import type { BrainStore } from './store.ts';

/** Batch numbers of one agent's boot remembered; a lower one that fell out counts as seen. */
const BATCHES_MAX = 1024;
const AGENTS_MAX = 4096;

/** Which batches of an agent's present boot have come. */
interface Seen {
  epoch: number;
  batches: Set<number>;
  /** batches below it were forgotten */
  floor: number;
  dropped: number;
}

/** Takes sample batches: each once, stored before it is acknowledged, then handed to those who learn from it. */
export class Ingest {
  private readonly env: Env;
  private readonly store: BrainStore;
  private readonly counters: Counters;
  private readonly take: (samples: readonly Sample[]) => void;
  private readonly seen = new Map<string, Seen>();

  constructor(env: Env, store: BrainStore, counters: Counters, take: (samples: readonly Sample[]) => void) {
    this.env = env;
    this.store = store;
    this.counters = counters;
    this.take = take;
  }

  /** Never rejects. Resolves when the batch is acknowledged. */
  async accept(peer: Peer, { batch, dropped, samples, invalid }: SampleBatch): Promise<void> {
    if (this.isNew(peer, batch, dropped)) {
      this.counters.samplesReceived += samples.length;
      this.counters.samplesInvalid += invalid;
      this.hand(samples);
      // A full disk costs the memory of these samples after a restart, not the samples: they are acknowledged all the
      // same.
      await this.store.appendSamples(samples, this.env.clock.wallMs());
    } else this.counters.batchesDuplicate += 1;
    peer.send(encode({ t: 'ack', batch } satisfies BrainMessage));
  }

  private isNew(peer: Peer, batch: number, dropped: number): boolean {
    let seen = this.seen.get(peer.agent);
    if (!seen || seen.epoch !== peer.epoch) {
      if (this.seen.size >= AGENTS_MAX) this.seen.delete(this.seen.keys().next().value as string);
      seen = { epoch: peer.epoch, batches: new Set(), floor: 0, dropped: 0 };
      this.seen.set(peer.agent, seen);
    }
    if (batch < seen.floor || seen.batches.has(batch)) return false;
    this.counters.samplesLost += Math.max(0, dropped - seen.dropped);
    seen.dropped = Math.max(seen.dropped, dropped);
    seen.batches.add(batch);
    if (seen.batches.size > BATCHES_MAX) {
      const lowest = Math.min(...seen.batches);
      seen.batches.delete(lowest);
      seen.floor = lowest + 1;
    }
    return true;
  }

  private hand(samples: readonly Sample[]): void {
    try {
      this.take(samples);
    } catch (error) {
      this.env.log.error({ err: error }, 'samples could not be learned from');
    }
  }
}
