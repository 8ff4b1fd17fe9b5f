/**
 * Map from a block hash to a block number, for at most `capacity` entries: open addressing with linear probing over
 * typed arrays. A JavaScript Map with 53-bit keys boxes every key and costs several times as much, and this is the
 * busiest structure of a simulation.
 */
export class HashIndex {
  private readonly keys: Float64Array;
  private readonly blocks: Int32Array;
  private readonly mask: number;

  constructor(capacity: number) {
    let size = 16;
    while (size < capacity * 2) size *= 2;
    this.mask = size - 1;
    this.keys = new Float64Array(size);
    this.blocks = new Int32Array(size);
  }

  /** The block of `hash`, 0 if there is none. */
  get(hash: number): number {
    return this.blocks[this.find(hash)]!;
  }

  /** Sets the block of `hash`; blocks are not 0. */
  set(hash: number, block: number): void {
    const at = this.find(hash);
    this.keys[at] = hash;
    this.blocks[at] = block;
  }

  /** Adds `hash` with `block` unless it is there; returns the block that was there, 0 if none. */
  add(hash: number, block: number): number {
    const at = this.find(hash);
    const present = this.blocks[at]!;
    if (present === 0) {
      this.keys[at] = hash;
      this.blocks[at] = block;
    }
    return present;
  }

  /** Removes `hash`, and moves later entries of the probe sequence up so that no gap hides them. */
  delete(hash: number): void {
    const { keys, blocks, mask } = this;
    let gap = this.find(hash);
    for (let at = (gap + 1) & mask; blocks[at] !== 0; at = (at + 1) & mask) {
      const home = (keys[at]! | 0) & mask;
      if (((at - home) & mask) < ((at - gap) & mask)) continue;
      keys[gap] = keys[at]!;
      blocks[gap] = blocks[at]!;
      gap = at;
    }
    blocks[gap] = 0;
  }

  clear(): void {
    this.blocks.fill(0);
  }

  private find(hash: number): number {
    const { keys, blocks, mask } = this;
    let at = (hash | 0) & mask;
    while (blocks[at] !== 0 && keys[at] !== hash) at = (at + 1) & mask;
    return at;
  }
}
