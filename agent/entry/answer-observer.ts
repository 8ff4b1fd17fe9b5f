import { classifyEvent, isNamed, readUsage, SseReader, type SseKind, type Usage } from '../wire/sse.ts';

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
/** Events before the first token are held back up to this size. */
const MAX_OPENING_BYTES = 1024 * 1024;
const MESSAGES_START = Buffer.from('event: message_start\n');
const FINISH = Buffer.from('"finish_reason":"');
const FINGERPRINT = /"system_fingerprint":"[^"\\]*"/;
const OBJECT_END = Buffer.from('}\n\n');

/**
 * Watches an answer go by: first token, tokens, usage, in-band errors; and makes of a stream with the usage event that only we asked for what it would have been
 * without. `filter` returns what goes to the client: the very chunk, unless something is taken from it.
 *
 * A stream of named events begins before its first token does (/v1/responses: at once). What only announces the answer is held back until there is one, so that until
 * then another instance may still give it, as for the other streams.
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
  private named: boolean | undefined;
  private messages = false;
  private opened = false;
  private opening: Buffer[] = [];
  private openingBytes = 0;
  /** last content event of a choice, until the next event shows whether it is the last of the stream */
  private finishing: Buffer | undefined;

  constructor(stream: boolean, stripUsage: boolean) {
    this.stream = stream;
    this.strip = stripUsage;
  }

  /** True for a stream of the Messages API, whose clients know errors by the name of their event. */
  get isMessages(): boolean {
    return this.messages;
  }

  /** `atMs`: since dispatch. Undefined when nothing of this chunk is for the client yet. */
  filter(chunk: Buffer, atMs: number): Buffer | undefined {
    if (!this.stream) {
      this.wholeBytes += chunk.length;
      if (this.wholeBytes > MAX_READ_BYTES) this.whole = undefined;
      this.whole?.push(chunk);
      return chunk;
    }
    this.named ??= isNamed(chunk);
    this.kept.length = 0;
    this.stripped = false;
    this.sawToken = false;
    this.reader.push(chunk, this.onEvent);
    if (this.named && !this.opened && this.hold(chunk)) return undefined;
    this.observed.ttftMs ??= atMs;
    if (this.sawToken) this.observed.lastTokenMs = atMs;
    if (this.opening.length > 0) return Buffer.concat([...this.opening.splice(0), chunk]);
    if (!this.strip) return chunk;
    if (this.kept.length === 1 && !this.stripped && this.finishing === undefined && (this.kept[0] as Buffer).length === chunk.length) return chunk;
    return this.kept.length > 0 ? Buffer.concat(this.kept) : undefined;
  }

  /** The answer is complete. Returns bytes still held back for the client. */
  finish(atMs: number): Buffer | undefined {
    if (this.stream) return this.rest(this.strip ? this.reader.flush() : undefined);
    this.observed.lastTokenMs = atMs;
    if (this.whole) this.observed.usage = readUsage(Buffer.concat(this.whole).toString('utf8'));
    return undefined;
  }

  /** Whole events of a stream that are held back for the client, and what is to follow them. */
  rest(following?: Buffer): Buffer | undefined {
    this.kept.length = 0;
    this.release();
    const rest = [...this.opening.splice(0), ...this.kept, ...(following ? [following] : [])];
    return rest.length > 0 ? Buffer.concat(rest) : undefined;
  }

  /** False once the opening is too large to be one. */
  private hold(chunk: Buffer): boolean {
    this.openingBytes += chunk.length;
    if (this.openingBytes > MAX_OPENING_BYTES) {
      this.opened = true;
      return false;
    }
    this.opening.push(chunk);
    return true;
  }

  private readonly onEvent = (event: Buffer): void => {
    const kind: SseKind = classifyEvent(event);
    if (kind !== 'frame') this.opened = true;
    else if (event.subarray(0, MESSAGES_START.length).equals(MESSAGES_START)) this.messages = true;
    if (kind === 'token') {
      this.observed.tokens += 1;
      this.sawToken = true;
    } else if (kind === 'error') this.observed.inBandError = true;
    else if (kind === 'usage') {
      const text = event.toString('utf8');
      this.observed.usage = readUsage(text) ?? this.observed.usage;
      if (this.strip) {
        this.stripped = true;
        this.release(FINGERPRINT.exec(text)?.[0]);
        return;
      }
    }
    if (!this.strip) return;
    this.release();
    if (kind === 'token' && event.includes(FINISH)) this.finishing = event;
    else this.kept.push(event);
  };

  /** Lets the held event go; with the fingerprint that vLLM stamps on it where no usage event follows. */
  private release(fingerprint?: string): void {
    const event = this.finishing;
    if (!event) return;
    this.finishing = undefined;
    const end = event.length - OBJECT_END.length;
    if (fingerprint === undefined || !event.subarray(end).equals(OBJECT_END)) this.kept.push(event);
    else this.kept.push(event.subarray(0, end), Buffer.from(`,${fingerprint}`), event.subarray(end));
  }
}
