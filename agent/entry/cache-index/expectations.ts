import type { Clock } from '../../../shared/env.ts';
import { ChainSet } from './chain-set.ts';

/** By now the door has had its say on a request that has ended. */
const SETTLED_MS = 200;
/**
 * Without a word of the door, what an ended request has left is believed this long: until its engine needs the room,
 * which nobody tells.
 */
const UNTOLD_MS = 300_000;
/** Blocks of ended requests that are kept: about one cache. */
const MAX_ENDED_BLOCKS = 32_768;

/** That one request will bring its prompt into an instance's cache. */
export interface Expectation {
  readonly hashes: Float64Array;
  /** the block whose presence in the door's view confirms it */
  readonly witness: number;
  /** when its request ended; undefined: in flight */
  endedMs: number | undefined;
}

/**
 * What one instance is about to cache because of requests of this entry, while its door has not said so: the requests
 * of a burst share a prefix. An expectation ends when the door's view has the block that was to come last, when its
 * request was never computed, and, of a request that ended well, with the door's next word. So the door's view decides,
 * and an expectation that does not come true does not stay. A reset of the view leaves it alone.
 */
export class Expectations {
  private readonly clock: Clock;
  private readonly tree = new ChainSet();
  private readonly open = new Set<Expectation>();
  private readonly ended = new Set<Expectation>();
  private endedBlocks = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Expectations that count. */
  get size(): number {
    return this.tree.size;
  }

  /**
   * A request was sent. `looseBlocks`: how many of its last blocks may lie in an engine block that is not full, which
   * the engine does not cache.
   */
  expect(hashes: Float64Array, looseBlocks: number): Expectation {
    const expectation = {
      hashes,
      witness: hashes[Math.max(0, hashes.length - 1 - looseBlocks)] ?? 0,
      endedMs: undefined,
    };
    if (hashes.length > 0) {
      this.open.add(expectation);
      this.tree.add(hashes);
    }
    return expectation;
  }

  /** Its request is over. `computed` false: no engine has computed the prompt. */
  end(expectation: Expectation, computed: boolean): void {
    if (!this.open.delete(expectation)) return;
    if (!computed) {
      this.tree.delete(expectation.hashes);
      return;
    }
    const nowMs = this.clock.nowMs();
    expectation.endedMs = nowMs;
    this.ended.add(expectation);
    this.endedBlocks += expectation.hashes.length;
    for (const oldest of this.ended) {
      if (this.endedBlocks <= MAX_ENDED_BLOCKS && nowMs - (oldest.endedMs as number) < UNTOLD_MS) return;
      this.drop(oldest);
    }
  }

  /** The door has spoken: what it has is its own, and of what has ended a while ago it has had its say. */
  confirm(holds: (hash: number) => boolean): void {
    for (const one of this.open) {
      if (!holds(one.witness)) continue;
      this.open.delete(one);
      this.tree.delete(one.hashes);
    }
    const nowMs = this.clock.nowMs();
    for (const one of this.ended)
      if (nowMs - (one.endedMs as number) >= SETTLED_MS || holds(one.witness)) this.drop(one);
  }

  /** The engine has restarted: what has ended has left nothing. */
  forgetEnded(): void {
    for (const one of this.ended) this.drop(one);
  }

  /** Leading blocks of the prompt that are expected. */
  match(prompt: Float64Array): number {
    return this.tree.size === 0 ? 0 : this.tree.match(prompt);
  }

  private drop(expectation: Expectation): void {
    this.ended.delete(expectation);
    this.endedBlocks -= expectation.hashes.length;
    this.tree.delete(expectation.hashes);
  }
}
