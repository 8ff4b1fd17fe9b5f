/** Smaller pieces share a buffer. */
const SMALL_BYTES = 16_384;
const MIN_BUFFER_BYTES = 4096;
const MAX_BUFFER_BYTES = 65_536;
/** More room than this is not left over in a buffer that is done with. */
const MAX_SLACK_BYTES = 1024;

/**
 * The pieces of a body as they come. What trickles in byte by byte is copied together, so that no more than about twice
 * the bytes that came are held; large pieces are kept as they are.
 */
export class BodyPieces {
  /** bytes that came */
  bytes = 0;
  /** bytes of memory held */
  heldBytes = 0;
  private readonly whole: Buffer[] = [];
  private buffer: Buffer | undefined;
  private used = 0;

  add(piece: Buffer): void {
    const isFirst = this.bytes === 0;
    this.bytes += piece.length;
    // Most bodies are one small piece.
    if (isFirst || piece.length >= SMALL_BYTES) {
      this.seal();
      this.keep(piece);
      return;
    }
    const copied = this.buffer ? piece.copy(this.buffer, this.used) : 0;
    this.used += copied;
    if (copied === piece.length) return;
    this.seal();
    this.buffer = Buffer.allocUnsafeSlow(Math.min(MAX_BUFFER_BYTES, Math.max(MIN_BUFFER_BYTES, this.bytes)));
    this.heldBytes += this.buffer.length;
    this.used = piece.copy(this.buffer, 0, copied);
  }

  /** All of them, when the last one is there. */
  list(): readonly Buffer[] {
    this.seal();
    return this.whole;
  }

  private keep(piece: Buffer): void {
    if (piece.length === 0) return;
    this.whole.push(piece);
    this.heldBytes += piece.length;
  }

  private seal(): void {
    const { buffer, used } = this;
    this.buffer = undefined;
    this.used = 0;
    if (!buffer) return;
    let piece = buffer.subarray(0, used);
    if (buffer.length - used > MAX_SLACK_BYTES) {
      piece = Buffer.allocUnsafeSlow(used);
      buffer.copy(piece, 0, 0, used);
      this.heldBytes -= buffer.length - used;
    }
    this.whole.push(piece);
  }
}
