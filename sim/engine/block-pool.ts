import { HashIndex } from './hash-index.ts';
import type { KvEvent } from './kv-events.ts';

/**
 * vLLM's block pool: `count` physical blocks of which block 0 (the null block) is never used, a free list in eviction order, reference
 * counts, and the map from hash to the blocks that hold it. A block stays hittable while it is on the free list; taking it from the head
 * of that list evicts its hash. The free list is circular with block 0 as its sentinel.
 */
export class BlockPool {
  readonly count: number;
  freeCount: number;
  private readonly next: Int32Array;
  private readonly prev: Int32Array;
  private readonly refs: Int32Array;
  private readonly hashes: Float64Array;
  /** Chains blocks with the same hash, oldest first; 0 ends the chain. */
  private readonly twin: Int32Array;
  private readonly byHash: HashIndex;
  private events: KvEvent[] = [];
  private readonly recordEvents: boolean;

  constructor(count: number, recordEvents = false) {
    this.count = count;
    this.recordEvents = recordEvents;
    this.freeCount = count - 1;
    this.next = new Int32Array(count);
    this.prev = new Int32Array(count);
    this.refs = new Int32Array(count);
    this.hashes = new Float64Array(count);
    this.twin = new Int32Array(count);
    this.byHash = new HashIndex(count);
    for (let block = 0; block < count; block++) {
      this.next[block] = block + 1 < count ? block + 1 : 0;
      this.prev[block] = block > 0 ? block - 1 : count - 1;
    }
  }

  /** Share of usable blocks that live requests reference, 0 to 1; cached but unreferenced blocks count as free. */
  get usageRatio(): number {
    return 1 - this.freeCount / (this.count - 1);
  }

  /** The oldest block that holds `hash`, or 0. */
  lookup(hash: number): number {
    return this.byHash.get(hash);
  }

  isFree(block: number): boolean {
    return this.refs[block] === 0;
  }

  /** Takes a reference on a block that was hit. */
  touch(block: number): void {
    if (this.isFree(block)) this.unlink(block);
    this.refs[block]!++;
  }

  /** Takes the first free block, evicting what it held. The caller has checked `freeCount`. */
  allocate(): number {
    const block = this.next[0]!;
    this.unlink(block);
    if (this.hashes[block]! !== 0) this.evict(block);
    this.refs[block] = 1;
    return block;
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

  /**
   * Drops the references of a request, last block first, so that suffixes are evicted before the prefixes that lead to them. Hashed
   * blocks go to the tail (least recently used leaves first), unhashed ones to the head, because nothing in them can be hit.
   */
  release(blocks: Int32Array, count: number): void {
    let firstUnhashed = 0;
    for (let i = count - 1; i >= 0; i--) {
      const block = blocks[i]!;
      if (--this.refs[block]! > 0) continue;
      this.freeCount++;
      if (this.hashes[block]! !== 0) this.linkAfter(this.prev[0]!, block);
      else {
        this.linkAfter(firstUnhashed, block);
        firstUnhashed = block;
      }
    }
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

  /** Free blocks in the order they will be taken. */
  freeOrder(): number[] {
    const order: number[] = [];
    for (let block = this.next[0]!; block !== 0; block = this.next[block]!) order.push(block);
    return order;
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

  private evict(block: number): void {
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

  private unlink(block: number): void {
    const before = this.prev[block]!;
    const after = this.next[block]!;
    this.next[before] = after;
    this.prev[after] = before;
    this.freeCount--;
  }

  private linkAfter(before: number, block: number): void {
    const after = this.next[before]!;
    this.next[before] = block;
    this.prev[block] = before;
    this.next[block] = after;
    this.prev[after] = block;
  }
}
