import { BlockRows, CHUNK_BITS, ROW_MASK, TAG, TAG_MASK } from './block-rows.ts';

/** Times this, a number of 32 bits or more loses its low 32 ones. */
const TO_HIGH = 2 ** -32;
const MIN_ENTRIES = 16;
/** Share of entries in use above which a table grows, and by how much: 4 / 0.53 bytes a block at most. */
const MAX_FILL = 0.8;
const GROWTH = 1.5;
/** Share below which a table shrinks. */
const MIN_FILL = 0.3;
/** An entry: distance from its home plus one (0: empty) above, slot below. */
const DISTANCE_SHIFT = 24;
const ONE_FURTHER = 1 << DISTANCE_SHIFT;
const SLOT_MASK = ONE_FURTHER - 1;
const MAX_DISTANCE = 255;
/**
 * What `put` allows, so that a table can always be rebuilt in another size: honest hashes stay below a quarter of it.
 */
const MAX_PUT_DISTANCE = 192;

/** The part of a hash that a row keeps beside its low 32 bits; never 0. */
export function tagOf(hash: number): number {
  return ((hash * TO_HIGH) | 0) + 1;
}

/**
 * Spreads a hash, given as its low 32 bits and its tag, over 32 bits: the low ones choose its table, the high ones its
 * place there.
 */
export function mixOf(low: number, tag: number): number {
  return Math.imul(low ^ (tag - 1), 0x9e3779b1) >>> 0;
}

/** True for what a fingerprint gives: integers from 1 to 2^53 − 1. Only they may be looked up. */
export function isHash(hash: number): boolean {
  return hash > 0 && Number.isSafeInteger(hash);
}

/**
 * Prefix blocks by hash, each with a row of `BlockRows`. Beside the rows, tables of slots with Robin Hood hashing
 * (Celis, 1986): the distance of each entry from its home is kept with it, so that rows are read only where the home is
 * right, and removal leaves no tombstones. Several tables, so that one that grows is soon done.
 */
export class BlockStore {
  readonly rows: BlockRows;
  private readonly tables: Int32Array[] = [];
  private readonly filled: number[] = [];
  /** how often a table has grown, in sum */
  private readonly levels: number[] = [];
  private readonly mask: number;
  private place = 0;
  private distance = 0;
  private readonly sink = new Int32Array(1);

  /** `tables`: a power of two. `bitWords`: 32 bits of each block's row beside its hash and tokens. */
  constructor(tables: number, bitWords: number) {
    this.mask = tables - 1;
    this.rows = new BlockRows(bitWords);
    for (let i = 0; i < tables; i++) {
      this.tables.push(new Int32Array(entriesAt(i / tables)));
      this.filled.push(0);
      this.levels.push(0);
    }
  }

  get count(): number {
    return this.rows.count;
  }

  get bytes(): number {
    return this.rows.bytes + this.tables.reduce((sum, entries) => sum + entries.byteLength, 0);
  }

  /** Slot of the hash; −1 if it is not there. */
  find(hash: number): number {
    const tag = tagOf(hash);
    const low = hash | 0;
    return this.seek(mixOf(low, tag), low, tag);
  }

  /** Slots of `hashes[from]` to `hashes[end − 1]`, from `slots[at]` on; −1: not there. */
  findAll(hashes: Float64Array, from: number, end: number, slots: Int32Array, at: number): void {
    this.readAhead(hashes, from, end);
    for (let i = from; i < end; i++) slots[at + i - from] = this.find(hashes[i] as number);
  }

  /**
   * Entries lie all over the memory: reads those of the next hashes, none of which depends on another, so that they are
   * waited for together.
   */
  readAhead(hashes: ArrayLike<number>, from: number, end: number): void {
    const { tables } = this;
    let touched = 0;
    for (let i = from; i < end; i++) {
      const hash = hashes[i] as number;
      const mix = mixOf(hash | 0, tagOf(hash));
      const entries = tables[mix & this.mask] as Int32Array;
      touched ^= entries[homeOf(mix, entries.length)] as number;
    }
    // Read by nobody; without it, the reads above would be left out.
    this.sink[0] = touched;
  }

  /**
   * Slot of the hash, which gets one if it has none; −1 if there is no room: too many hashes have the same home, as
   * only made-up ones can.
   */
  put(hash: number): number {
    const tag = tagOf(hash);
    const low = hash | 0;
    const mix = mixOf(low, tag);
    const known = this.seek(mix, low, tag);
    if (known >= 0) return known;
    const which = mix & this.mask;
    const entries = this.tables[which] as Int32Array;
    if ((this.filled[which] as number) + 1 > entries.length * MAX_FILL) {
      if (!this.rebuild(which, (this.levels[which] as number) + 1)) return -1;
      this.seek(mix, low, tag);
    }
    if (!this.hasRoom(this.tables[which] as Int32Array, MAX_PUT_DISTANCE)) return -1;
    const slot = this.rows.take();
    this.enter(this.tables[which] as Int32Array, slot);
    this.filled[which] = (this.filled[which] as number) + 1;
    const chunk = slot >>> CHUNK_BITS;
    const rows = this.rows.chunks[chunk] as Int32Array;
    const at = (slot & ROW_MASK) * (this.rows.strides[chunk] as number);
    rows[at] = low;
    rows[at + TAG] = tag;
    return slot;
  }

  /** Forgets the block in the slot, and the row with it. */
  remove(slot: number): void {
    const mix = this.mixAt(slot);
    const which = mix & this.mask;
    const entries = this.tables[which] as Int32Array;
    let at = homeOf(mix, entries.length);
    while (((entries[at] as number) & SLOT_MASK) !== slot || entries[at] === 0)
      at = at + 1 === entries.length ? 0 : at + 1;
    for (;;) {
      const next = at + 1 === entries.length ? 0 : at + 1;
      const entry = entries[next] as number;
      if (entry >>> DISTANCE_SHIFT <= 1) break;
      entries[at] = entry - ONE_FURTHER;
      at = next;
    }
    entries[at] = 0;
    this.rows.free(slot);
    const filled = (this.filled[which] as number) - 1;
    this.filled[which] = filled;
    if ((this.levels[which] as number) > 0 && filled < entries.length * MIN_FILL)
      this.rebuild(which, (this.levels[which] as number) - 1);
  }

  /** Slot of a hash; if there is none, `place` and `distance` are where it would go. */
  private seek(mix: number, low: number, tag: number): number {
    const { chunks, strides } = this.rows;
    const entries = this.tables[mix & this.mask] as Int32Array;
    let at = homeOf(mix, entries.length);
    for (let distance = 1; ; distance++) {
      const entry = entries[at] as number;
      const its = entry >>> DISTANCE_SHIFT;
      if (its < distance) {
        this.place = at;
        this.distance = distance;
        return -1;
      }
      if (its === distance) {
        const slot = entry & SLOT_MASK;
        const chunk = slot >>> CHUNK_BITS;
        const rows = chunks[chunk] as Int32Array;
        const row = (slot & ROW_MASK) * (strides[chunk] as number);
        if (rows[row] === low && ((rows[row + TAG] as number) & TAG_MASK) === tag) return slot;
      }
      at = at + 1 === entries.length ? 0 : at + 1;
    }
  }

  /** False if an entry at `place` would be, or would push another one, further than `limit` from its home. */
  private hasRoom(entries: Int32Array, limit: number): boolean {
    if (this.distance > limit) return false;
    for (let at = this.place; entries[at] !== 0; at = at + 1 === entries.length ? 0 : at + 1) {
      if ((entries[at] as number) >>> DISTANCE_SHIFT >= limit) return false;
    }
    return true;
  }

  /** Puts the slot at `place` and moves the entries there one further. */
  private enter(entries: Int32Array, slot: number): void {
    let entry = (this.distance << DISTANCE_SHIFT) | slot;
    for (let at = this.place; ; at = at + 1 === entries.length ? 0 : at + 1) {
      const there = entries[at] as number;
      entries[at] = entry;
      if (there === 0) return;
      entry = (there + ONE_FURTHER) | 0;
    }
  }

  private mixAt(slot: number): number {
    const chunk = slot >>> CHUNK_BITS;
    const rows = this.rows.chunks[chunk] as Int32Array;
    const at = (slot & ROW_MASK) * (this.rows.strides[chunk] as number);
    return mixOf(rows[at] as number, (rows[at + TAG] as number) & TAG_MASK);
  }

  /** False, and nothing is changed, if the hashes do not fit in a table of that level. */
  private rebuild(which: number, level: number): boolean {
    const size = entriesAt(level + which / this.tables.length);
    const entries = new Int32Array(size);
    for (const entry of this.tables[which] as Int32Array) {
      if (entry === 0) continue;
      const slot = entry & SLOT_MASK;
      this.place = homeOf(this.mixAt(slot), size);
      this.distance = 1;
      while ((entries[this.place] as number) >>> DISTANCE_SHIFT >= this.distance) {
        this.place = this.place + 1 === size ? 0 : this.place + 1;
        this.distance += 1;
      }
      if (!this.hasRoom(entries, MAX_DISTANCE)) return false;
      this.enter(entries, slot);
    }
    this.tables[which] = entries;
    this.levels[which] = level;
    return true;
  }
}

function homeOf(mix: number, entries: number): number {
  return (mix * entries * TO_HIGH) | 0;
}

/** Entries of a table; the tables of a store are a part of a level apart, so that they grow one after the other. */
function entriesAt(level: number): number {
  return Math.ceil(MIN_ENTRIES * GROWTH ** level);
}
