import { classifyEvent, readUsage, SseReader, type SseKind, type Usage } from './sse.ts';

/** What one attempt showed, measured at the entry. Milliseconds since its dispatch. */
export interface Observed {
  ttftMs: number | undefined;
  lastTokenMs: number | undefined;
  tokens: number;
  usage: Usage | undefined;
  /** an error event inside a 200 stream */
  inBandError: boolean;
}

const MAX_READ_BYTES = 8 * 1024 * 1024;

/**
 * Watches an answer go by: first byte, tokens, usage, in-band errors; and cuts out the usage event that only we asked for. `filter` returns what goes to the
 * client: the very chunk, unless something is stripped from it.
 */
export class AnswerObserver {
  readonly observed: Observed = { ttftMs: undefined, lastTokenMs: undefined, tokens: 0, usage: undefined, inBandError: false };
  private readonly stream: boolean;
  private readonly strip: boolean;
  private readonly reader = new SseReader();
  private kept: Buffer[] = [];
  private stripped = false;
  private whole: Buffer[] | undefined = [];
  private wholeBytes = 0;
  private sawToken = false;

  constructor(stream: boolean, stripUsage: boolean) {
    this.stream = stream;
    this.strip = stripUsage;
  }

  /** `atMs`: since dispatch. Undefined when nothing of this chunk is for the client yet. */
  filter(chunk: Buffer, atMs: number): Buffer | undefined {
    if (!this.stream) {
      this.wholeBytes += chunk.length;
      if (this.wholeBytes > MAX_READ_BYTES) this.whole = undefined;
      this.whole?.push(chunk);
      return chunk;
    }
    this.observed.ttftMs ??= atMs;
    this.kept.length = 0;
    this.stripped = false;
    this.sawToken = false;
    this.reader.push(chunk, this.onEvent);
    if (this.sawToken) this.observed.lastTokenMs = atMs;
    if (!this.strip) return chunk;
    if (this.kept.length === 1 && !this.stripped && (this.kept[0] as Buffer).length === chunk.length) return chunk;
    return this.kept.length > 0 ? Buffer.concat(this.kept) : undefined;
  }

  /** The answer is complete. Returns bytes still held back for the client. */
  finish(atMs: number): Buffer | undefined {
    if (!this.stream) {
      this.observed.lastTokenMs = atMs;
      if (this.whole) this.observed.usage = readUsage(Buffer.concat(this.whole).toString('utf8'));
      return undefined;
    }
    return this.strip ? this.reader.flush() : undefined;
  }

  private readonly onEvent = (event: Buffer): void => {
    const kind: SseKind = classifyEvent(event);
    if (kind === 'token') {
      this.observed.tokens += 1;
      this.sawToken = true;
    } else if (kind === 'error') this.observed.inBandError = true;
    else if (kind === 'usage') {
      this.observed.usage = readUsage(event.toString('utf8')) ?? this.observed.usage;
      if (this.strip) {
        this.stripped = true;
        return;
      }
    }
    if (this.strip) this.kept.push(event);
  };
}
