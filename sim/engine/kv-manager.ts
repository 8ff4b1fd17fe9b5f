import { BlockPool } from './block-pool.ts';
import type { EngineRequest } from './request.ts';

/**
 * Blocks of requests: prefix hits, allocation, registration of full blocks, release. Rules as vLLM's KVCacheManager.
 */
export class KvManager {
  readonly pool: BlockPool;
  readonly blockSize: number;
  private readonly hits: number[] = [];

  constructor(blockCount: number, blockSize: number, recordEvents: boolean) {
    this.pool = new BlockPool(blockCount, recordEvents);
    this.blockSize = blockSize;
  }

  /**
   * Admits a waiting request with `n = min(tokens not cached, budget)` tokens to compute: finds the longest run of
   * cached blocks from the start (at most (tokens - 1) / block size, so at least one token is computed), checks that
   * the *whole* sequence would fit, and takes the blocks of the first chunk. Returns the tokens to compute and leaves
   * `request.computed` at the hit, or returns 0 and changes nothing.
   */
  admit(request: EngineRequest, budget: number): number {
    const { pool, blockSize, hits } = this;
    const total = request.tokenCount;
    const limit = Math.floor((total - 1) / blockSize);
    hits.length = 0;
    let freeHits = 0;
    for (let i = 0; i < limit; i++) {
      const block = pool.lookup(request.hashOf(i));
      if (block === 0) break;
      hits.push(block);
      if (pool.isFree(block)) freeHits++;
    }
    const wanted = Math.ceil(total / blockSize) - hits.length + freeHits;
    if (wanted > pool.freeCount) return 0;
    const hit = hits.length * blockSize;
    const n = Math.min(total - hit, budget);
    for (const block of hits) {
      pool.touch(block);
      request.appendBlock(block);
    }
    request.cachedBlocks = hits.length;
    request.computed = hit;
    this.extend(request, hit + n);
    return n;
  }

  /** Blocks that `request` lacks to hold `tokens`. */
  missing(request: EngineRequest, tokens: number): number {
    return tokens <= request.capacity ? 0 : Math.ceil((tokens - request.capacity) / this.blockSize);
  }

  /**
   * Takes the blocks missing for `tokens` (the caller knows that they are free) and registers those that will be full.
   */
  extend(request: EngineRequest, tokens: number): void {
    while (request.capacity < tokens) request.appendBlock(this.pool.allocate());
    this.cache(request, tokens);
  }

  /** Registers the blocks full with the first `tokens` tokens, as far as their values are known. */
  cache(request: EngineRequest, tokens: number): void {
    const full = Math.floor(Math.min(tokens, request.tokenCount) / this.blockSize);
    const from = request.cachedBlocks;
    if (full <= from) return;
    for (let i = from; i < full; i++) this.pool.register(request.blocks[i]!, request.hashOf(i));
    request.cachedBlocks = full;
    if (this.pool.eventsRecorded) this.recordStored(request, from, full);
  }

  /** Releases all blocks of a request that ends or is preempted; their hashes stay until evicted. */
  release(request: EngineRequest): void {
    this.pool.release(request.blocks, request.blockCount);
    request.dropBlocks();
  }

  private recordStored(request: EngineRequest, from: number, to: number): void {
    const hashes: number[] = [];
    const extraKeys: (string[] | null)[] = [];
    for (let i = from; i < to; i++) {
      hashes.push(request.hashOf(i));
      const keys: string[] = [];
      if (request.lora !== undefined) keys.push(request.lora);
      if (i === 0 && request.salt !== undefined) keys.push(request.salt);
      extraKeys.push(keys.length > 0 ? keys : null);
    }
    const tokenIds: number[] = [];
    for (let i = from * this.blockSize; i < to * this.blockSize; i++) tokenIds.push(request.token(i));
    const parent = from > 0 ? request.hashOf(from - 1) : null;
    this.pool.addEvent({ type: 'stored', hashes, parent, tokenIds, lora: request.lora ?? null, extraKeys });
  }
}
