/** Words of a row before its bits: low half of the hash; tag and hint; tokens. */
export const HEAD_WORDS = 3;
export const TAG = 1;
export const TOKENS = 2;
/**
 * The low bits of word TAG are the high half of the hash plus one (0: the row is free); those above say how many rows
 * on the block is that followed this one.
 */
export const TAG_MASK = 0x3fffff;
export const HINT_SHIFT = 22;
export const MAX_HINT = 1023;
/** Larger counts would not be positive in a row. */
const MAX_TOKENS = 0x7fffffff;

/** A slot is a chunk and a row in it. */
export const CHUNK_BITS = 14;
export const CHUNK_ROWS = 1 << CHUNK_BITS;
export const ROW_MASK = CHUNK_ROWS - 1;
const FIRST_ROWS = 64;
const NEXT_ROWS = 2048;
/** Share of rows in use above which rows are added: the gaps keep the search for a free row short. */
const MAX_USED = 0.94;
/** Chunks with a smaller share of free rows are not searched. */
const MIN_FREE = 0.03;
/** A chunk without a used row is given back if the others are then no fuller than this. */
const USED_AFTER_RELEASE = 0.8;

/**
 * Rows of integers in chunks: adding some moves none. A row goes to the next gap after the last one taken, so that what
 * is added in a run lies in a run.
 */
export class BlockRows {
  /** `strides[c]` words a row */
  readonly chunks: Int32Array[] = [];
  readonly strides: number[] = [];
  count = 0;
  private readonly bitWords: number;
  private readonly used: number[] = [];
  private readonly released: number[] = [];
  private capacity = 0;
  /** the chunk that has not its full size yet; −1: none */
  private growing = -1;
  private chunk = 0;
  private row = 0;

  /** `bitWords`: words after the head of each row, until `widen`. */
  constructor(bitWords: number) {
    this.bitWords = bitWords;
  }

  get bytes(): number {
    return this.chunks.reduce((sum, rows) => sum + rows.byteLength, 0);
  }

  /** A free row, all zero. The caller must set its tag before it takes another. */
  take(): number {
    if (this.count + 1 > this.capacity * MAX_USED) this.grow();
    for (;;) {
      const rows = this.chunks[this.chunk] as Int32Array;
      const stride = this.strides[this.chunk] as number;
      for (let at = this.row * stride + TAG; at < rows.length; at += stride) {
        if (rows[at] !== 0) continue;
        const row = (at - TAG) / stride;
        this.row = row + 1;
        this.used[this.chunk] = (this.used[this.chunk] as number) + 1;
        this.count += 1;
        return (this.chunk << CHUNK_BITS) | row;
      }
      this.nextChunk();
    }
  }

  free(slot: number): void {
    const chunk = slot >>> CHUNK_BITS;
    const rows = this.chunks[chunk] as Int32Array;
    const stride = this.strides[chunk] as number;
    const at = (slot & ROW_MASK) * stride;
    rows.fill(0, at, at + stride);
    this.count -= 1;
    const used = (this.used[chunk] as number) - 1;
    this.used[chunk] = used;
    if (used === 0 && chunk !== this.growing && this.count < (this.capacity - CHUNK_ROWS) * USED_AFTER_RELEASE)
      this.release(chunk);
  }

  tokensAt(slot: number): number {
    const chunk = slot >>> CHUNK_BITS;
    return (this.chunks[chunk] as Int32Array)[(slot & ROW_MASK) * (this.strides[chunk] as number) + TOKENS] as number;
  }

  /** 0 (not known) overwrites nothing, nor does what no prompt has. */
  setTokens(slot: number, tokens: number): void {
    if (tokens <= 0 || tokens > MAX_TOKENS) return;
    const chunk = slot >>> CHUNK_BITS;
    (this.chunks[chunk] as Int32Array)[(slot & ROW_MASK) * (this.strides[chunk] as number) + TOKENS] = tokens;
  }

  /** Hash and tokens of every row in use, in the order of the rows. */
  each(fn: (hash: number, tokens: number) => void): void {
    for (const [chunk, rows] of this.chunks.entries()) {
      const stride = this.strides[chunk] as number;
      for (let at = 0; at < rows.length; at += stride) {
        const tag = (rows[at + TAG] as number) & TAG_MASK;
        if (tag !== 0) fn((tag - 1) * 4294967296 + ((rows[at] as number) >>> 0), rows[at + TOKENS] as number);
      }
    }
  }

  /** Makes the rows of one chunk `bitWords` wider than their heads. */
  widen(chunk: number, bitWords: number): void {
    this.resize(chunk, this.rowsIn(chunk), HEAD_WORDS + bitWords);
  }

  private rowsIn(chunk: number): number {
    return (this.chunks[chunk] as Int32Array).length / (this.strides[chunk] as number);
  }

  private nextChunk(): void {
    this.row = 0;
    do {
      this.chunk = (this.chunk + 1) % this.chunks.length;
    } while (this.rowsIn(this.chunk) - (this.used[this.chunk] as number) <= this.rowsIn(this.chunk) * MIN_FREE);
  }

  private grow(): void {
    if (this.growing < 0) {
      const chunk = this.released.pop() ?? this.chunks.length;
      this.chunks[chunk] = new Int32Array(0);
      this.strides[chunk] = HEAD_WORDS + this.bitWords;
      this.used[chunk] = 0;
      this.growing = chunk;
    }
    const chunk = this.growing;
    const before = this.rowsIn(chunk);
    const after = before > 0 ? before * 2 : this.capacity === 0 ? FIRST_ROWS : NEXT_ROWS;
    this.resize(chunk, after, this.strides[chunk] as number);
    this.capacity += after - before;
    this.chunk = chunk;
    this.row = before;
    if (after === CHUNK_ROWS) this.growing = -1;
  }

  private release(chunk: number): void {
    this.chunks[chunk] = new Int32Array(0);
    this.released.push(chunk);
    this.capacity -= CHUNK_ROWS;
  }

  private resize(chunk: number, count: number, stride: number): void {
    const old = this.chunks[chunk] as Int32Array;
    const oldStride = this.strides[chunk] as number;
    const rows = new Int32Array(count * stride);
    if (stride === oldStride) rows.set(old);
    else
      for (let from = 0, to = 0; from < old.length; from += oldStride, to += stride)
        for (let word = 0; word < oldStride; word++) rows[to + word] = old[from + word] as number;
    this.chunks[chunk] = rows;
    this.strides[chunk] = stride;
  }
}
