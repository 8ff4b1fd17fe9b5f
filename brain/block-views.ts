import { BlockStore, isHash } from '../shared/blocks/block-store.ts';
import { encode, packHashes, packTokens, unpackHashes, unpackTokens } from '../shared/codec.ts';
import type { Clock } from '../shared/env.ts';
import { type BlocksMessage, type BrainMessage, MAX_HASHES_PER_FRAME } from '../shared/protocol.ts';
import type { Peer } from './connection.ts';
import type { Counters } from './counters.ts';

/**
 * Hashes kept for joiners over the whole fleet: the caches of 256 instances with 32,768 blocks each, at some 20 bytes a
 * hash. A view that no longer fits is passed on but not kept: when somebody joins, its door is asked, and sends it to
 * everybody once more.
 */
export const HASHES_MAX = 8_388_608;
const ASK_AGAIN_MS = 2_000;
const ASK_AGAIN_MAX_MS = 60_000;

interface View {
  incarnation: number;
  /** of the last delta applied; the next one must follow it */
  seq: number;
  /** null: too large to keep */
  blocks: BlockStore | null;
  /** false after a gap, until the door sends a reset */
  whole: boolean;
}

/**
 * Since when a whole view has been expected of a door, how long to wait before asking (again), and whether it was
 * asked.
 */
interface Ask {
  atMs: number;
  waitMs: number;
  sent: boolean;
}

export interface BlockViewsSource {
  peers(): Iterable<Peer>;
  /** sends to the agent that holds the instance, if it is connected */
  askDoor(instance: string, message: BrainMessage): void;
}

/**
 * Passes block deltas of each door on to the other agents, and keeps each instance's view so that an agent which joins
 * gets it at once.
 *
 * A replayed view is a chain of frames: the first a reset, the last with the door's present sequence number, so that
 * the live deltas follow it without a gap. The numbers cannot run below 0: a door needed at least as many frames since
 * its own reset to say as many hashes.
 */
export class BlockViews {
  private readonly clock: Clock;
  private readonly counters: Counters;
  private readonly source: BlockViewsSource;
  private readonly hashesMax: number;
  private readonly views = new Map<string, View>();
  private readonly asks = new Map<string, Ask>();
  private kept = 0;

  constructor(clock: Clock, counters: Counters, source: BlockViewsSource, hashesMax: number = HASHES_MAX) {
    this.clock = clock;
    this.counters = counters;
    this.source = source;
    this.hashesMax = hashesMax;
  }

  /** Takes a door's delta (`frame`: as it came) and passes it on if it fits what was passed on before. */
  apply(door: string, delta: BlocksMessage, frame: Uint8Array): void {
    const view = this.views.get(delta.instance);
    if (delta.reset) this.start(delta);
    else {
      if (
        !view ||
        !view.whole ||
        delta.incarnation > view.incarnation ||
        (delta.incarnation === view.incarnation && delta.seq > view.seq + 1)
      ) {
        this.brokeOff(delta.instance, view);
        return;
      }
      if (delta.incarnation < view.incarnation || delta.seq <= view.seq) return;
      view.seq = delta.seq;
      this.change(view, delta);
    }
    for (const peer of this.source.peers()) {
      if (peer.agent === door || peer.owed.blocks.has(delta.instance)) continue;
      if (peer.slow()) peer.owed.blocks.add(delta.instance);
      else peer.send(frame);
    }
  }

  /** Everything known, for an agent that joins; views that were not kept are asked for. */
  oweAll(peer: Peer): void {
    for (const instance of this.views.keys()) peer.owed.blocks.add(instance);
  }

  /** Sends what is owed while the agent reads fast enough; the rest stays owed. */
  payOwed(peer: Peer, own: (instance: string) => boolean): void {
    for (const instance of peer.owed.blocks) {
      if (!peer.ready()) return;
      peer.owed.blocks.delete(instance);
      const view = this.views.get(instance);
      if (!view || own(instance)) continue;
      if (view.blocks && view.whole)
        for (const message of replay(instance, view, view.blocks)) peer.send(encode(message));
      else this.ask(instance);
    }
  }

  /**
   * A report of the instance came: a view of an earlier incarnation no longer holds, and a missing one is asked for if
   * it does not come by itself.
   */
  noteReport(instance: string, incarnation: number): void {
    let view = this.views.get(instance);
    if (view && view.incarnation < incarnation) {
      this.forget(instance);
      view = undefined;
    }
    if (view?.whole) return;
    const expected = this.asks.get(instance);
    if (!expected) this.asks.set(instance, { atMs: this.clock.nowMs(), waitMs: ASK_AGAIN_MS, sent: false });
    else if (this.clock.nowMs() - expected.atMs >= expected.waitMs) this.ask(instance);
  }

  forget(instance: string): void {
    const view = this.views.get(instance);
    if (view?.blocks) this.kept -= view.blocks.count;
    this.views.delete(instance);
    this.asks.delete(instance);
  }

  /** Hashes kept, and views. */
  totals(): { views: number; hashes: number } {
    return { views: this.views.size, hashes: this.kept };
  }

  private start(delta: BlocksMessage): void {
    this.forget(delta.instance);
    const blocks = this.kept < this.hashesMax ? new BlockStore(1, 0) : null;
    const view: View = { incarnation: delta.incarnation, seq: delta.seq, blocks, whole: true };
    this.views.set(delta.instance, view);
    this.change(view, delta);
  }

  private change(view: View, delta: BlocksMessage): void {
    const { blocks } = view;
    if (!blocks) return;
    const before = blocks.count;
    for (const hash of unpackHashes(delta.remove)) {
      const slot = isHash(hash) ? blocks.find(hash) : -1;
      if (slot >= 0) blocks.remove(slot);
    }
    const tokens = unpackTokens(delta.tokens);
    for (const [i, hash] of unpackHashes(delta.add).entries()) {
      const slot = isHash(hash) ? blocks.put(hash) : -1;
      if (slot >= 0) blocks.rows.setTokens(slot, tokens[i] ?? 0);
    }
    this.kept += blocks.count - before;
    if (this.kept <= this.hashesMax) return;
    this.kept -= blocks.count;
    view.blocks = null;
  }

  private brokeOff(instance: string, view: View | undefined): void {
    this.counters.blockGaps += 1;
    if (view) view.whole = false;
    this.ask(instance);
  }

  /** Asks the door for the whole view, ever less often while it does not answer. */
  private ask(instance: string): void {
    const now = this.clock.nowMs();
    const last = this.asks.get(instance);
    if (last?.sent && now - last.atMs < last.waitMs) return;
    this.asks.set(instance, {
      atMs: now,
      waitMs: last?.sent ? Math.min(ASK_AGAIN_MAX_MS, last.waitMs * 2) : ASK_AGAIN_MS,
      sent: true,
    });
    this.source.askDoor(instance, { t: 'resend-blocks', instance });
  }
}

function* replay(instance: string, view: View, blocks: BlockStore): Generator<BlocksMessage> {
  const hashes = new Float64Array(blocks.count);
  const tokens = new Uint32Array(blocks.count);
  let n = 0;
  blocks.rows.each((hash, count) => {
    hashes[n] = hash;
    tokens[n] = count;
    n += 1;
  });
  const frames = Math.max(1, Math.ceil(n / MAX_HASHES_PER_FRAME));
  for (let i = 0; i < frames; i++) {
    const [from, to] = [i * MAX_HASHES_PER_FRAME, (i + 1) * MAX_HASHES_PER_FRAME];
    yield {
      t: 'blocks',
      instance,
      incarnation: view.incarnation,
      seq: view.seq - (frames - 1) + i,
      reset: i === 0,
      add: packHashes(hashes.subarray(from, to)),
      remove: new Uint8Array(0),
      tokens: packTokens(tokens.subarray(from, to)),
    };
  }
}
