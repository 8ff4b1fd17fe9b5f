import type { CacheFigures } from '../../shared/instance.ts';

/** One cached run of tokens: a byte block with its hash, or an unnamed remainder (partial last block, generated tokens). */
interface Block {
  hash: number | undefined;
  tokens: number;
  refs: number;
  prev: Block | undefined;
  next: Block | undefined;
}

/** Changes of a view of cached prefix blocks. */
export interface BlockDelta {
  /** `add` is the whole view */
  reset: boolean;
  add: number[];
  /** one for each of `add`, or none: prompt tokens from the start of the prompt to the end of the block; 0: not known */
  tokens: number[];
  remove: number[];
}

/** What one request holds of the pool. */
export interface PoolLease {
  blocks: Block[];
  /** of those: the ones that were not cached when it came */
  added: Block[];
  /** tokens of the request that belong to no whole byte block: its tail and what it has generated */
  loose: number;
}

/** The first form never believes that the engine keeps less than this share of its nominal capacity. */
const CAPACITY_FLOOR = 0.5;
/** Share of a mismatch by which the believed capacity moves. */
const CORRECTION_RATE = 0.1;
/** Changes remembered between two drains; beyond, the delta is the whole view. */
const MAX_DELTA = 262_144;

/**
 * The door's account of its engine's KV cache in byte blocks: same capacity, LRU order, shared blocks counted once while referenced, released last
 * block first as vLLM does (vllm/v1/core/block_pool.py), so that suffixes leave before the prefixes they hang on.
 */
export class ShadowPool {
  private readonly byHash = new Map<number, Block>();
  // Least recently used first; a ring with a sentinel.
  private readonly lru: Block = { hash: undefined, tokens: 0, refs: 0, prev: undefined, next: undefined };
  private capacity: number;
  private nominal: number;
  private total = 0;
  private used = 0;
  private added = new Set<number>();
  private removed = new Set<number>();
  private fresh = true;

  constructor(capacityTokens: number) {
    this.capacity = capacityTokens;
    this.nominal = capacityTokens;
    this.lru.prev = this.lru;
    this.lru.next = this.lru;
  }

  /** Tokens of blocks that live requests reference, shared ones once. Sums of fractions: never below zero by rounding. */
  get usedTokens(): number {
    return Math.max(0, this.used);
  }

  get capacityTokens(): number {
    return this.nominal;
  }

  get blockCount(): number {
    return this.byHash.size;
  }

  setCapacity(tokens: number): void {
    this.capacity = tokens * (this.capacity / Math.max(1, this.nominal));
    this.nominal = tokens;
    this.evict();
  }

  /** How many of the leading hashes are cached, contiguously from the first. */
  match(hashes: Float64Array): number {
    let n = 0;
    while (n < hashes.length && this.byHash.has(hashes[n] as number)) n += 1;
    return n;
  }

  /** Tokens by which `usedTokens` would grow if the prompt were taken in: blocks that lie cached without a reference take room too once they have one. */
  claimTokens(hashes: Float64Array, tokensPerBlock: number, promptTokens: number): number {
    let claim = Math.max(0, promptTokens - hashes.length * tokensPerBlock);
    for (const hash of hashes) {
      const block = this.byHash.get(hash);
      if (!block) claim += tokensPerBlock;
      else if (block.refs === 0) claim += block.tokens;
    }
    return claim;
  }

  /** Takes a prompt in: references its cached blocks, adds the others, evicts what no longer fits. Token counts are estimates. */
  acquire(hashes: Float64Array, tokensPerBlock: number, promptTokens: number): PoolLease {
    const blocks: Block[] = [];
    const added: Block[] = [];
    for (const hash of hashes) {
      let block = this.byHash.get(hash);
      if (block) {
        if (block.refs === 0) {
          unlink(block);
          this.used += block.tokens;
        }
        block.refs += 1;
      } else {
        block = { hash, tokens: tokensPerBlock, refs: 1, prev: undefined, next: undefined };
        this.byHash.set(hash, block);
        added.push(block);
        this.total += block.tokens;
        this.used += block.tokens;
        this.noteAdded(hash);
      }
      blocks.push(block);
    }
    const lease: PoolLease = { blocks, added, loose: 0 };
    this.grow(lease, Math.max(0, promptTokens - hashes.length * tokensPerBlock));
    return lease;
  }

  /** Adds generated tokens to a lease. */
  grow(lease: PoolLease, tokens: number): void {
    lease.loose += tokens;
    this.total += tokens;
    this.used += tokens;
    this.evict();
  }

  /** Ends a lease; what it held stays cached until it is evicted. `computed` false: the engine never computed it, so what it would have brought goes too. */
  release(lease: PoolLease, computed = true): void {
    if (lease.loose > 0) {
      this.used -= lease.loose;
      this.append({ hash: undefined, tokens: lease.loose, refs: 0, prev: undefined, next: undefined });
      lease.loose = 0;
    }
    for (let i = lease.blocks.length - 1; i >= 0; i--) {
      const block = lease.blocks[i] as Block;
      block.refs -= 1;
      if (block.refs > 0) continue;
      this.used -= block.tokens;
      this.append(block);
    }
    if (!computed) for (const block of lease.added) if (block.refs === 0) this.drop(block);
    lease.blocks.length = 0;
    lease.added.length = 0;
    // While all was referenced, nothing could go.
    this.evict();
  }

  /** Learns from the engine's own count how much it really keeps: tokens believed cached at dispatch against `cached_tokens`. */
  correct(predictedTokens: number, reportedTokens: number, slackTokens: number): void {
    const wrong = reportedTokens - predictedTokens;
    if (Math.abs(wrong) <= slackTokens) return;
    const moved = this.capacity + CORRECTION_RATE * wrong;
    this.capacity = Math.min(this.nominal, Math.max(this.nominal * CAPACITY_FLOOR, moved));
    this.evict();
  }

  /** Forgets everything that no live request references: the engine's cache was reset. */
  resetCached(): void {
    let block = this.lru.next as Block;
    while (block !== this.lru) {
      const next = block.next as Block;
      this.drop(block);
      block = next;
    }
  }

  /** Forgets everything, leases included: the engine restarted. */
  clear(): void {
    this.byHash.clear();
    this.lru.prev = this.lru;
    this.lru.next = this.lru;
    this.total = 0;
    this.used = 0;
    this.capacity = this.nominal;
    this.added.clear();
    this.removed.clear();
    this.fresh = true;
  }

  figures(): CacheFigures {
    return { source: 'estimate', problem: '', blocks: this.blockCount, offloadedBlocks: 0, hitRatio: 0, accuracyRatio: 0, checked: 0 };
  }

  /** Changes since the last call; `reset` means that `add` is the whole view. */
  drainDelta(): BlockDelta {
    const delta = this.fresh
      ? { reset: true, add: [...this.byHash.keys()], tokens: [], remove: [] }
      : { reset: false, add: [...this.added], tokens: [], remove: [...this.removed] };
    this.added.clear();
    this.removed.clear();
    this.fresh = false;
    return delta;
  }

  get hasDelta(): boolean {
    return this.fresh || this.added.size > 0 || this.removed.size > 0;
  }

  /** The next delta is the whole view. */
  requestReset(): void {
    this.fresh = true;
  }

  private append(block: Block): void {
    const last = this.lru.prev as Block;
    block.prev = last;
    block.next = this.lru;
    last.next = block;
    this.lru.prev = block;
  }

  private evict(): void {
    while (this.total > this.capacity) {
      const oldest = this.lru.next as Block;
      if (oldest === this.lru) return;
      this.drop(oldest);
    }
  }

  private drop(block: Block): void {
    unlink(block);
    this.total -= block.tokens;
    if (block.hash === undefined) return;
    this.byHash.delete(block.hash);
    if (!this.added.delete(block.hash)) this.removed.add(block.hash);
    this.boundDelta();
  }

  private noteAdded(hash: number): void {
    if (!this.removed.delete(hash)) this.added.add(hash);
    this.boundDelta();
  }

  private boundDelta(): void {
    if (this.added.size + this.removed.size <= MAX_DELTA) return;
    this.added.clear();
    this.removed.clear();
    this.fresh = true;
  }
}

function unlink(block: Block): void {
  if (block.prev) block.prev.next = block.next;
  if (block.next) block.next.prev = block.prev;
  block.prev = undefined;
  block.next = undefined;
}
