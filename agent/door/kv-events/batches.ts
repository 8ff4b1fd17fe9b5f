import xxhash from 'xxhash-wasm';

const { h32Raw } = await xxhash();

/** One message of the stream, not decoded yet. */
export interface Batch {
  seq: number;
  payload: Uint8Array;
  /** The replay socket was asked because of it. */
  asked?: boolean;
  /** Its number is not above that of the live batch that came before it. */
  isBack?: boolean;
}

/** More than vLLM's replay buffer holds (10,000). */
const REMEMBERED = 16_384;

/**
 * Remembers the newest batches of one sequence by number and checksum, so that one that comes again is told from one of
 * the same number of another engine.
 */
export class BatchMemory {
  private readonly sums = new Uint32Array(REMEMBERED);
  private last = -1;
  private isEmpty = true;
  /** Number of the oldest of the sequence. */
  first = 0;

  clear(): void {
    this.isEmpty = true;
  }

  /** The next batch of the sequence, or, after `clear`, the first. */
  add({ seq, payload }: Batch): void {
    if (this.isEmpty) this.first = seq;
    this.isEmpty = false;
    this.last = seq;
    this.sums[seq % REMEMBERED] = h32Raw(payload, 0);
  }

  /** Whether this very batch was added, and not too long ago. */
  has({ seq, payload }: Batch): boolean {
    if (this.isEmpty || seq < this.first || seq > this.last || seq <= this.last - REMEMBERED) return false;
    return this.sums[seq % REMEMBERED] === h32Raw(payload, 0);
  }
}

const MAX_BATCHES = 20_000;
const MAX_BYTES = 64 << 20;
/** Batches that are done with and still held. */
const COMPACT_AT = 1024;

/** Batches that wait their turn, in order, within bounds. */
export class PendingBatches {
  private batches: Batch[] = [];
  private at = 0;
  private bytes = 0;

  get first(): Batch | undefined {
    return this.batches[this.at];
  }

  /** False: there is no room, and the batch is not kept. */
  add(batch: Batch): boolean {
    if (this.batches.length - this.at >= MAX_BATCHES || this.bytes + batch.payload.byteLength > MAX_BYTES) return false;
    this.batches.push(batch);
    this.bytes += batch.payload.byteLength;
    return true;
  }

  shift(): void {
    this.bytes -= this.first?.payload.byteLength ?? 0;
    this.at++;
    if (this.at < COMPACT_AT && this.at < this.batches.length) return;
    this.batches = this.batches.slice(this.at);
    this.at = 0;
  }

  clear(): void {
    this.batches = [];
    this.at = 0;
    this.bytes = 0;
  }
}
