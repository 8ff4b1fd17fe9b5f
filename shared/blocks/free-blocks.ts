/**
 * vLLM's physical KV blocks and the order in which free ones are taken (vllm/v1/core/block_pool.py,
 * FreeKVCacheBlockQueue): `count` blocks of which block 0 (the null block) is never used, reference counts, and a free
 * list from whose head blocks are taken. A block without references keeps its content until it is taken; what the
 * content is, the subclass knows. The free list is circular with block 0 as its sentinel.
 */
export abstract class FreeBlocks {
  readonly count: number;
  freeCount: number;
  protected readonly next: Int32Array;
  protected readonly prev: Int32Array;
  protected readonly refs: Int32Array;

  constructor(count: number) {
    this.count = count;
    this.freeCount = count - 1;
    this.next = new Int32Array(count);
    this.prev = new Int32Array(count);
    this.refs = new Int32Array(count);
    for (let block = 0; block < count; block++) {
      this.next[block] = block + 1 < count ? block + 1 : 0;
      this.prev[block] = block > 0 ? block - 1 : count - 1;
    }
  }

  /** Share of usable blocks that live requests reference, 0 to 1; cached but unreferenced blocks count as free. */
  get usageRatio(): number {
    return 1 - this.freeCount / (this.count - 1);
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
    if (this.hasContent(block)) this.evict(block);
    this.refs[block] = 1;
    return block;
  }

  /**
   * Drops the references of a request, last block first, so that suffixes are evicted before the prefixes that lead to
   * them. Blocks with content go to the tail (least recently used leaves first), others to the head, because nothing in
   * them can be hit.
   */
  release(blocks: ArrayLike<number>, count: number): void {
    let firstEmpty = 0;
    for (let i = count - 1; i >= 0; i--) {
      const block = blocks[i]!;
      if (--this.refs[block]! > 0) continue;
      this.freeCount++;
      if (this.hasContent(block)) this.linkAfter(this.prev[0]!, block);
      else {
        this.linkAfter(firstEmpty, block);
        firstEmpty = block;
      }
    }
  }

  /** Free blocks in the order they will be taken. */
  freeOrder(): number[] {
    const order: number[] = [];
    for (let block = this.next[0]!; block !== 0; block = this.next[block]!) order.push(block);
    return order;
  }

  /** True if a later request could hit the block. */
  protected abstract hasContent(block: number): boolean;

  /** The block is taken for other content. */
  protected abstract evict(block: number): void;

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
