import {
  CHUNK_BITS,
  HEAD_WORDS,
  HINT_SHIFT,
  MAX_HINT,
  ROW_MASK,
  TAG,
  TAG_MASK,
  TOKENS,
} from '../../../shared/blocks/block-rows.ts';
import { BlockStore, isHash, tagOf } from '../../../shared/blocks/block-store.ts';

/** Blocks that the index takes: the caches of 256 instances with 32,768 blocks of their own each. */
export const MAX_BLOCKS = 8_388_608;
/** Tables that share the blocks: each grows alone and is soon done (131,072 blocks at most). */
const TABLES = 64;
/** Blocks of a prompt that are located together; fewer at first, since most prompts match little. */
const GROUP = 32;
const FIRST_GROUP = 8;
/** Changes after which one chunk of rows is swept: four resets of 32,768 blocks sweep 2 million. */
const CHANGES_PER_SWEEP = 1024;
/** Columns that wait to be swept; beyond, all are swept at once. */
const MAX_LEFT = 16;

/** Result of `match`, by column. */
export interface PrefixMatch {
  /** leading blocks of the prompt that the instance holds */
  depth: Uint32Array;
  /** prompt tokens up to the end of the last of them; 0: not known, or none */
  tokens: Uint32Array;
}

/**
 * Which instances hold which prefix block: hash → bit set of instances, and how many prompt tokens end with the block,
 * which is a fact of the hash. The longest cached prefix of every instance comes out of one pass over the prompt's
 * hashes.
 *
 * Blocks of one prompt mostly come together, so their rows lie together: each row remembers how far on the row of the
 * block is that followed it. That is a guess, checked by the hash; where it fails, the next blocks are looked up. So a
 * pass is exact whatever was removed, and reads the memory mostly in order.
 *
 * Memory, tables and gaps included: 28 bytes a block with up to 64 instances, 54 with 256 (`npm run bench --
 * cache-index`). What does not fit in `maxBlocks` is refused and counted: its instance then seems to hold less than it
 * does, until its door sends its whole view again.
 */
export class BlockIndex {
  refused = 0;
  private readonly maxBlocks: number;
  private readonly store = new BlockStore(TABLES, 1);
  private readonly columns = new Map<string, number>();
  private readonly freeColumns: number[] = [];
  private made = 0;
  private counts = new Int32Array(32);
  /** bits of the columns that instances have, 32 a word */
  private live = new Int32Array(1);
  private alive = new Int32Array(1);
  /**
   * columns whose instance has left them, with bits still in rows: those that wait, and those of the sweep under way
   */
  private left: number[] = [];
  private sweeping: number[] = [];
  private sweepMask = new Int32Array(1);
  private sweepChunk = 0;
  private changes = 0;
  private readonly slots = new Int32Array(GROUP);

  constructor(maxBlocks: number = MAX_BLOCKS) {
    this.maxBlocks = maxBlocks;
  }

  get blockCount(): number {
    return this.store.count;
  }

  get bytes(): number {
    return this.store.bytes;
  }

  /** Blocks known of one instance. */
  blocksOf(instance: string): number {
    const column = this.columns.get(instance);
    return column === undefined ? 0 : (this.counts[column] as number);
  }

  /** Column of an instance in match results; made on first use, another one after `clear`. */
  column(instance: string): number {
    const known = this.columns.get(instance);
    if (known !== undefined) return known;
    const column = this.takeColumn();
    this.columns.set(instance, column);
    return column;
  }

  /**
   * `tokens`: of the prompt up to the end of the block, 0 if not known. A hash that no fingerprint gives is left out.
   */
  add(instance: string, hash: number, tokens = 0): void {
    this.put(this.column(instance), hash, tokens, -1);
  }

  /** Adds many, best in the order of their prompts; `tokens` has one for each, or none. */
  addAll(instance: string, hashes: ArrayLike<number>, tokens: ArrayLike<number>): void {
    const column = this.column(instance);
    let slot = -1;
    for (let i = 0; i < hashes.length; i++) {
      if (i % GROUP === 0) this.store.readAhead(hashes, i, Math.min(hashes.length, i + GROUP));
      slot = this.put(column, hashes[i] as number, i < tokens.length ? (tokens[i] as number) : 0, slot);
    }
  }

  remove(instance: string, hash: number): void {
    const column = this.columns.get(instance);
    if (column !== undefined) this.take(column, hash);
  }

  removeAll(instance: string, hashes: ArrayLike<number>): void {
    const column = this.columns.get(instance);
    if (column === undefined) return;
    for (let i = 0; i < hashes.length; i++) {
      if (i % GROUP === 0) this.store.readAhead(hashes, i, Math.min(hashes.length, i + GROUP));
      this.take(column, hashes[i] as number);
    }
  }

  /** True if the instance is known to hold the block. */
  holds(instance: string, hash: number): boolean {
    const column = this.columns.get(instance);
    if (column === undefined || !isHash(hash)) return false;
    const slot = this.store.find(hash);
    return slot >= 0 && this.hasBit(slot, column);
  }

  /** Prompt tokens up to the end of a block, if any instance holds it and they are known; else 0. */
  tokensAt(hash: number): number {
    const slot = isHash(hash) ? this.store.find(hash) : -1;
    return slot < 0 ? 0 : this.store.rows.tokensAt(slot);
  }

  /**
   * Forgets all blocks of an instance; with `leave`, its column too. The bits are swept out of the rows a little at a
   * time, so the instance may have another column afterwards: `column` must be asked again.
   */
  clear(instance: string, leave = false): void {
    const column = this.columns.get(instance);
    if (column === undefined) return;
    this.columns.delete(instance);
    this.live[column >>> 5] = (this.live[column >>> 5] as number) & ~(1 << (column & 31));
    if (this.counts[column] === 0) this.freeColumns.push(column);
    else {
      this.counts[column] = 0;
      this.left.push(column);
      this.sweep(1);
    }
    if (!leave) this.column(instance);
  }

  /**
   * Longest cached prefix of every instance, contiguous from the first block. `into` must be as long as the highest
   * column + 1 and is overwritten.
   */
  match(hashes: Float64Array, into: PrefixMatch): void {
    into.depth.fill(0);
    into.tokens.fill(0);
    const { alive, slots } = this;
    const { chunks, strides } = this.store.rows;
    alive.set(this.live);
    let reached = 0;
    let last = -1;
    for (let from = 0, end = 0; from < hashes.length; from = end) {
      end = Math.min(hashes.length, from + (from === 0 ? FIRST_GROUP : GROUP));
      this.locate(hashes, from, end, last);
      for (let i = from; i < end; i++) {
        const slot = slots[i - from] as number;
        const chunk = slot < 0 ? 0 : slot >>> CHUNK_BITS;
        const stride = slot < 0 ? 0 : (strides[chunk] as number);
        const row = (slot & ROW_MASK) * stride;
        let any = 0;
        for (let word = 0; word < alive.length; word++) {
          const before = alive[word] as number;
          const now =
            HEAD_WORDS + word < stride
              ? before & ((chunks[chunk] as Int32Array)[row + HEAD_WORDS + word] as number)
              : 0;
          any |= now;
          if (now === before) continue;
          settle(into, word, before & ~now, i, reached);
          alive[word] = now;
        }
        if (any === 0) return;
        reached = (chunks[chunk] as Int32Array)[row + TOKENS] as number;
        last = slot;
      }
    }
    for (let word = 0; word < alive.length; word++) settle(into, word, alive[word] as number, hashes.length, reached);
  }

  /**
   * Fills `slots` for `hashes[from]` to `hashes[end − 1]`; −1: not there. `last`: slot of the block before them, or −1.
   */
  private locate(hashes: Float64Array, from: number, end: number, last: number): void {
    const { slots, store } = this;
    let i = from;
    if (last >= 0) {
      const chunk = last >>> CHUNK_BITS;
      const rows = store.rows.chunks[chunk] as Int32Array;
      const stride = store.rows.strides[chunk] as number;
      let slot = last;
      let at = (last & ROW_MASK) * stride;
      for (; i < end; i++) {
        const on = (rows[at + TAG] as number) >>> HINT_SHIFT;
        const next = at + on * stride;
        if (on === 0 || next >= rows.length) break;
        const hash = hashes[i] as number;
        if (rows[next] !== (hash | 0) || ((rows[next + TAG] as number) & TAG_MASK) !== tagOf(hash)) break;
        at = next;
        slot += on;
        slots[i - from] = slot;
      }
      if (i > from) last = slot;
    }
    if (i === end) return;
    const looked = i;
    store.findAll(hashes, looked, end, slots, looked - from);
    for (; i < end; i++) {
      const slot = slots[i - from] as number;
      if (slot >= 0 && last >= 0) this.noteNext(last, slot);
      last = slot;
    }
  }

  private put(column: number, hash: number, tokens: number, last: number): number {
    if (!isHash(hash)) return -1;
    this.noteChange();
    const { store } = this;
    const slot = store.count < this.maxBlocks ? store.put(hash) : store.find(hash);
    if (slot < 0) {
      this.refused += 1;
      return -1;
    }
    const { rows } = store;
    const chunk = slot >>> CHUNK_BITS;
    const word = HEAD_WORDS + (column >>> 5);
    if (word >= (rows.strides[chunk] as number)) rows.widen(chunk, word + 1 - HEAD_WORDS);
    const words = rows.chunks[chunk] as Int32Array;
    const row = (slot & ROW_MASK) * (rows.strides[chunk] as number);
    rows.setTokens(slot, tokens);
    const bit = 1 << (column & 31);
    const before = words[row + word] as number;
    if ((before & bit) === 0) {
      words[row + word] = before | bit;
      this.counts[column] = (this.counts[column] as number) + 1;
    }
    if (last >= 0) this.noteNext(last, slot);
    return slot;
  }

  private take(column: number, hash: number): void {
    if (!isHash(hash)) return;
    this.noteChange();
    const slot = this.store.find(hash);
    if (slot < 0 || !this.hasBit(slot, column)) return;
    const { chunks, strides } = this.store.rows;
    const chunk = slot >>> CHUNK_BITS;
    const words = chunks[chunk] as Int32Array;
    const stride = strides[chunk] as number;
    const row = (slot & ROW_MASK) * stride;
    const at = row + HEAD_WORDS + (column >>> 5);
    words[at] = (words[at] as number) & ~(1 << (column & 31));
    this.counts[column] = (this.counts[column] as number) - 1;
    if (isFree(words, row, stride)) this.store.remove(slot);
  }

  private hasBit(slot: number, column: number): boolean {
    const { chunks, strides } = this.store.rows;
    const chunk = slot >>> CHUNK_BITS;
    const stride = strides[chunk] as number;
    const word = HEAD_WORDS + (column >>> 5);
    return (
      word < stride &&
      (((chunks[chunk] as Int32Array)[(slot & ROW_MASK) * stride + word] as number) & (1 << (column & 31))) !== 0
    );
  }

  /** The block in slot `last` was followed by the one in `slot`. */
  private noteNext(last: number, slot: number): void {
    const on = slot - last;
    if (on <= 0 || on > MAX_HINT || last >>> CHUNK_BITS !== slot >>> CHUNK_BITS) return;
    const { chunks, strides } = this.store.rows;
    const chunk = last >>> CHUNK_BITS;
    const words = chunks[chunk] as Int32Array;
    const at = (last & ROW_MASK) * (strides[chunk] as number) + TAG;
    words[at] = ((words[at] as number) & TAG_MASK) | (on << HINT_SHIFT);
  }

  private takeColumn(): number {
    if (this.freeColumns.length === 0 && this.left.length + this.sweeping.length >= MAX_LEFT) this.sweep(Infinity);
    const column = this.freeColumns.pop() ?? this.made++;
    if (column >= this.counts.length) {
      this.counts = grown(this.counts, 2 * this.counts.length);
      this.live = grown(this.live, this.counts.length / 32);
      this.sweepMask = grown(this.sweepMask, this.live.length);
      this.alive = new Int32Array(this.live.length);
    }
    this.live[column >>> 5] = (this.live[column >>> 5] as number) | (1 << (column & 31));
    return column;
  }

  private noteChange(): void {
    this.changes += 1;
    if (this.changes < CHANGES_PER_SWEEP) return;
    this.changes = 0;
    this.sweep(1);
  }

  /** Sweeps the columns that instances have left out of the next few chunks. */
  private sweep(chunks: number): void {
    const { rows } = this.store;
    for (let done = 0; done < chunks; done++) {
      if (this.sweeping.length === 0) {
        if (this.left.length === 0) return;
        this.sweeping = this.left;
        this.left = [];
        this.sweepMask.fill(0);
        for (const column of this.sweeping)
          this.sweepMask[column >>> 5] = (this.sweepMask[column >>> 5] as number) | (1 << (column & 31));
        this.sweepChunk = 0;
      }
      this.sweepOut(this.sweepChunk);
      this.sweepChunk += 1;
      if (this.sweepChunk < rows.chunks.length) continue;
      this.freeColumns.push(...this.sweeping);
      this.sweeping = [];
    }
  }

  /** Clears the bits of the sweep in every row of a chunk, and removes the rows that are left without any. */
  private sweepOut(chunk: number): void {
    const words = this.store.rows.chunks[chunk] as Int32Array;
    const stride = this.store.rows.strides[chunk] as number;
    const mask = this.sweepMask;
    for (let row = 0, n = 0; row < words.length; row += stride, n++) {
      let hit = 0;
      for (let word = HEAD_WORDS; word < stride; word++) {
        const bits = (words[row + word] as number) & (mask[word - HEAD_WORDS] as number);
        if (bits === 0) continue;
        words[row + word] = (words[row + word] as number) & ~bits;
        hit = 1;
      }
      if (hit !== 0 && isFree(words, row, stride)) this.store.remove((chunk << CHUNK_BITS) | n);
    }
  }
}

/** The instances with these bits hold the first `blocks` of the prompt and no more. */
function settle({ depth, tokens }: PrefixMatch, word: number, bits: number, blocks: number, reached: number): void {
  let left = bits;
  while (left !== 0) {
    const bit = 31 - Math.clz32(left);
    left &= ~(1 << bit);
    const column = word * 32 + bit;
    if (column >= depth.length) continue;
    depth[column] = blocks;
    tokens[column] = reached;
  }
}

function isFree(words: Int32Array, row: number, stride: number): boolean {
  for (let word = row + HEAD_WORDS; word < row + stride; word++) if (words[word] !== 0) return false;
  return true;
}

function grown(old: Int32Array, length: number): Int32Array<ArrayBuffer> {
  const wider = new Int32Array(length);
  wider.set(old);
  return wider;
}
