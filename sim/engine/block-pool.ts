import { FreeBlocks } from '../../shared/blocks/free-blocks.ts';
import { HashIndex } from './hash-index.ts';
import type { KvEvent } from './kv-events.ts';

/**
 * vLLM's block pool: the free blocks in eviction order, and the map from hash to the blocks that hold it. A block stays
 * hittable while it is on the free list; taking it from the head of that list evicts its hash.
 */
export class BlockPool extends FreeBlocks {
  private readonly hashes: Float64Array;
  /** Chains blocks with the same hash, oldest first; 0 ends the chain. */
  private readonly twin: Int32Array;
  private readonly byHash: HashIndex;
  private events: KvEvent[] = [];
  private readonly recordEvents: boolean;

  constructor(count: number, recordEvents = false) {
    super(count);
    this.recordEvents = recordEvents;
    this.hashes = new Float64Array(count);
    this.twin = new Int32Array(count);
    this.byHash = new HashIndex(count);
  }

  /** The oldest block that holds `hash`, or 0. */
  lookup(hash: number): number {
    return this.byHash.get(hash);
  }

  /** Makes a full block hittable. */
  register(block: number, hash: number): void {
    this.hashes[block] = hash;
    this.twin[block] = 0;
    const first = this.byHash.add(hash, block);
    if (first === 0) return;
    let last = first;
    while (this.twin[last]! !== 0) last = this.twin[last]!;
    this.twin[last] = block;
  }

  /** Forgets every hash. Refused (false) while any block is referenced. */
  reset(): boolean {
    if (this.freeCount !== this.count - 1) return false;
    this.byHash.clear();
    this.hashes.fill(0);
    this.twin.fill(0);
    if (this.recordEvents) this.events.push({ type: 'cleared' });
    return true;
  }

  get eventsRecorded(): boolean {
    return this.recordEvents;
  }

  addEvent(event: KvEvent): void {
    this.events.push(event);
  }

  /** Events since the last call. */
  takeEvents(): KvEvent[] {
    const events = this.events;
    if (events.length > 0) this.events = [];
    return events;
  }

  protected override hasContent(block: number): boolean {
    return this.hashes[block]! !== 0;
  }

  protected override evict(block: number): void {
    const hash = this.hashes[block]!;
    this.hashes[block] = 0;
    const first = this.byHash.get(hash);
    if (first === block) {
      const heir = this.twin[block]!;
      if (heir === 0) this.byHash.delete(hash);
      else this.byHash.set(hash, heir);
    } else {
      let before = first;
      while (this.twin[before]! !== block) before = this.twin[before]!;
      this.twin[before] = this.twin[block]!;
    }
    this.twin[block] = 0;
    if (this.recordEvents) this.events.push({ type: 'removed', hash });
  }
}
