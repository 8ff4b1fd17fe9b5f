import { createHash, type Hash } from 'node:crypto';

/** Takes bytes as a scanner finds them. */
export interface Sink {
  push(byte: number): void;
  copy(source: Buffer, start: number, end: number): void;
}

const FIRST_BYTES = 256;
/** Shorter copies are faster byte by byte than by a native call. */
const SHORT_BYTES = 24;
/** What is not text and longer than this stands for itself by its hash. */
const MAX_PART_BYTES = 256;
const STAGE_BYTES = 4096;
const NOTHING = Buffer.alloc(0);

/** Bytes in one growing buffer, up to a bound; what goes beyond it is counted and dropped. */
export class ByteSink implements Sink {
  /** bytes kept */
  length = 0;
  /** bytes offered, kept or not */
  offered = 0;
  private readonly max: number;
  private buffer: Buffer = NOTHING;

  constructor(max: number) {
    this.max = max;
  }

  get full(): boolean {
    return this.length >= this.max;
  }

  /** bytes of memory held */
  get heldBytes(): number {
    return this.buffer.length;
  }

  /** What is kept, as a view until the next change. */
  get bytes(): Buffer {
    return this.buffer.subarray(0, this.length);
  }

  push(byte: number): void {
    this.offered += 1;
    if (this.length === this.buffer.length && !this.grow(1)) return;
    this.buffer[this.length++] = byte;
  }

  copy(source: Buffer, start: number, end: number): void {
    this.offered += end - start;
    const stop = Math.min(end, start + this.max - this.length);
    if (stop <= start) return;
    if (this.length + stop - start > this.buffer.length) this.grow(stop - start);
    if (stop - start > SHORT_BYTES) this.length += source.copy(this.buffer, this.length, start, stop);
    else for (let at = start; at < stop; at++) this.buffer[this.length++] = source[at] as number;
  }

  append(bytes: Buffer): void {
    this.copy(bytes, 0, bytes.length);
  }

  /** Appends what another one was offered, as far as it has kept it. */
  appendSink(other: ByteSink): void {
    this.copy(other.buffer, 0, other.length);
    this.offered += other.offered - other.length;
  }

  /** Counts bytes that are not worth reading, since they would be dropped. */
  pass(bytes: number): void {
    this.offered += bytes;
  }

  /** Goes back to an earlier length. */
  rewind(length: number, offered: number): void {
    this.length = length;
    this.offered = offered;
  }

  reset(): void {
    this.rewind(0, 0);
  }

  private grow(by: number): boolean {
    const size = Math.min(this.max, Math.max(FIRST_BYTES, 2 * this.buffer.length, this.length + by));
    if (size === this.buffer.length) return false;
    const buffer = Buffer.allocUnsafeSlow(size);
    this.buffer.copy(buffer, 0, 0, this.length);
    this.buffer = buffer;
    return true;
  }
}

/**
 * A part of a message that is not text, one at a time: its JSON, or the SHA-256 of it in hex where it is long. The
 * base64 of an image says nothing of its tokens, so it must not count as text.
 */
export class PartDigest implements Sink {
  private readonly stage = new ByteSink(STAGE_BYTES);
  private hash: Hash | undefined;
  private total = 0;
  private stopped = false;

  begin(): void {
    this.stage.reset();
    this.hash = undefined;
    this.total = 0;
    this.stopped = false;
  }

  /** The part is text after all. */
  stop(): void {
    this.stopped = true;
  }

  push(byte: number): void {
    if (this.stopped) return;
    if (this.stage.full) this.flush();
    this.stage.push(byte);
    this.total += 1;
  }

  copy(source: Buffer, start: number, end: number): void {
    if (this.stopped) return;
    this.total += end - start;
    if (this.stage.length + end - start > STAGE_BYTES) this.flush();
    if (end - start > STAGE_BYTES) this.hash?.update(source.subarray(start, end));
    else this.stage.copy(source, start, end);
  }

  /** Appends what the part stands for. */
  end(sink: ByteSink): void {
    if (this.total <= MAX_PART_BYTES) {
      sink.appendSink(this.stage);
      return;
    }
    this.flush();
    if (this.hash) sink.append(Buffer.from(this.hash.digest('hex')));
  }

  private flush(): void {
    this.hash ??= createHash('sha256');
    this.hash.update(this.stage.bytes);
    this.stage.reset();
  }
}
