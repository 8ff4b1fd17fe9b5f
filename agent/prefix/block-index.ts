const EMPTY = 0;
const INITIAL_SLOTS = 1024;
/** Share of slots in use above which the table grows. */
const MAX_FILL = 0.6;

/**
 * Which instances hold which prefix block: hash → bit set of instances, in one open-addressed table. The longest cached prefix of every
 * instance comes out of one pass over the prompt's hashes. Memory: 8 bytes a slot and 4 more per 32 instances.
 */
export class BlockIndex {
  private keys = new Float64Array(INITIAL_SLOTS);
  private words = 1;
  private masks = new Uint32Array(INITIAL_SLOTS);
  private slots = INITIAL_SLOTS;
  private filled = 0;
  private readonly columns = new Map<string, number>();
  private readonly freeColumns: number[] = [];
  private readonly counts = new Map<string, number>();
  private alive = new Uint32Array(1);

  get blockCount(): number {
    return this.filled;
  }

  /** Blocks known of one instance. */
  blocksOf(instance: string): number {
    return this.counts.get(instance) ?? 0;
  }

  /** Column of an instance in match results; made on first use. */
  column(instance: string): number {
    const known = this.columns.get(instance);
    if (known !== undefined) return known;
    const column = this.freeColumns.pop() ?? this.columns.size;
    this.columns.set(instance, column);
    if (column >= this.words * 32) this.rebuild(this.slots, this.words * 2);
    return column;
  }

  /** True if the instance was not known to hold the block. A hash that no fingerprint gives (0 marks an empty slot, NaN is never found again) is left out. */
  add(instance: string, hash: number): boolean {
    if (!(hash > 0 && Number.isSafeInteger(hash))) return false;
    const column = this.column(instance);
    if ((this.filled + 1) / this.slots > MAX_FILL) this.rebuild(this.slots * 2, this.words);
    let slot = this.find(hash);
    if (this.keys[slot] === EMPTY) {
      this.keys[slot] = hash;
      this.filled += 1;
    }
    slot = slot * this.words + (column >>> 5);
    const bit = 1 << (column & 31);
    if (((this.masks[slot] as number) & bit) !== 0) return false;
    this.masks[slot] = (this.masks[slot] as number) | bit;
    this.counts.set(instance, this.blocksOf(instance) + 1);
    return true;
  }

  remove(instance: string, hash: number): void {
    const column = this.columns.get(instance);
    if (column === undefined) return;
    const slot = this.find(hash);
    if (this.keys[slot] === EMPTY) return;
    const word = slot * this.words + (column >>> 5);
    const bit = 1 << (column & 31);
    if (((this.masks[word] as number) & bit) === 0) return;
    this.masks[word] = (this.masks[word] as number) & ~bit;
    this.counts.set(instance, this.blocksOf(instance) - 1);
    if (this.isZero(slot)) this.deleteSlot(slot);
  }

  /** Forgets all blocks of an instance; with `leave`, its column too. */
  clear(instance: string, leave = false): void {
    const column = this.columns.get(instance);
    if (column === undefined) return;
    if (this.blocksOf(instance) > 0) {
      const bit = 1 << (column & 31);
      for (let word = column >>> 5; word < this.masks.length; word += this.words) this.masks[word] = (this.masks[word] as number) & ~bit;
      this.rebuild(this.slots, this.words);
    }
    this.counts.delete(instance);
    if (!leave) return;
    this.columns.delete(instance);
    this.freeColumns.push(column);
  }

  /**
   * Longest contiguous cached prefix of every instance, in blocks: `into[column]` counts. Stops at the first block that no instance
   * has reached. `into` must be as long as the highest column + 1 and is overwritten.
   */
  match(hashes: Float64Array, into: Uint32Array): void {
    into.fill(0);
    const { words } = this;
    if (this.alive.length !== words) this.alive = new Uint32Array(words);
    const alive = this.alive;
    alive.fill(0xffffffff);
    for (let depth = 0; depth < hashes.length; depth++) {
      const slot = this.find(hashes[depth] as number);
      if (this.keys[slot] === EMPTY) return;
      let any = 0;
      for (let word = 0; word < words; word++) {
        let bits = ((alive[word] as number) & (this.masks[slot * words + word] as number)) >>> 0;
        alive[word] = bits;
        any |= bits;
        while (bits !== 0) {
          const bit = 31 - Math.clz32(bits);
          const column = word * 32 + bit;
          if (column < into.length) into[column] = depth + 1;
          bits = (bits & ~(1 << bit)) >>> 0;
        }
      }
      if (any === 0) return;
    }
  }

  /** Slot that holds the hash, or the empty one where it would go. */
  private find(hash: number): number {
    const mask = this.slots - 1;
    // Hashes are already well mixed: their low 32 bits place them.
    let slot = (hash >>> 0) & mask;
    while (this.keys[slot] !== EMPTY && this.keys[slot] !== hash) slot = (slot + 1) & mask;
    return slot;
  }

  private isZero(slot: number): boolean {
    for (let word = slot * this.words, end = word + this.words; word < end; word++) if (this.masks[word] !== 0) return false;
    return true;
  }

  /** Empties a slot and moves up those behind it that probed past it, so that no tombstones gather. */
  private deleteSlot(hole: number): void {
    const mask = this.slots - 1;
    let gap = hole;
    let slot = (gap + 1) & mask;
    while (this.keys[slot] !== EMPTY) {
      const home = ((this.keys[slot] as number) >>> 0) & mask;
      if (((slot - home) & mask) >= ((slot - gap) & mask)) {
        this.keys[gap] = this.keys[slot] as number;
        for (let word = 0; word < this.words; word++) this.masks[gap * this.words + word] = this.masks[slot * this.words + word] as number;
        gap = slot;
      }
      slot = (slot + 1) & mask;
    }
    this.keys[gap] = EMPTY;
    this.masks.fill(0, gap * this.words, (gap + 1) * this.words);
    this.filled -= 1;
  }

  /** Moves everything into a table of the given size, leaving out blocks that nobody holds. */
  private rebuild(slots: number, words: number): void {
    const { keys, masks, slots: oldSlots, words: oldWords } = this;
    this.keys = new Float64Array(slots);
    this.masks = new Uint32Array(slots * words);
    this.slots = slots;
    this.words = words;
    this.filled = 0;
    for (let old = 0; old < oldSlots; old++) {
      if (keys[old] === EMPTY) continue;
      let any = 0;
      for (let word = 0; word < oldWords; word++) any |= masks[old * oldWords + word] as number;
      if (any === 0) continue;
      const slot = this.find(keys[old] as number);
      this.keys[slot] = keys[old] as number;
      for (let word = 0; word < oldWords; word++) this.masks[slot * words + word] = masks[old * oldWords + word] as number;
      this.filled += 1;
    }
  }
}
