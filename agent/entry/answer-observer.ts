import type { Surface } from '../wire/client-answer.ts';
import { EventCutter, isComment, isNamed, readUsage, type SseKind, type Usage } from '../wire/sse.ts';
import type { AnswerTold } from '../wire/upstream.ts';
import { type AnswerForm, WholeAnswer } from '../wire/whole-answer.ts';

/** What one attempt showed, measured at the entry. Milliseconds since its dispatch. */
export interface Observed {
  ttftMs: number | undefined;
  lastTokenMs: number | undefined;
  tokens: number;
  usage: Usage | undefined;
  /** an error event inside a 200 stream */
  inBandError: boolean;
}

/** Events before the first token are held back up to this size. */
const MAX_OPENING_BYTES = 1024 * 1024;
const MESSAGES_START = Buffer.from('event: message_start');
const FINISH = Buffer.from('"finish_reason":"');
const FINGERPRINT = /"system_fingerprint":"[^"\\]*"/;
const OBJECT_END = Buffer.from('}\n\n');

/**
 * Watches an answer go by: first token, tokens, usage, in-band errors; and makes of a stream with the usage event that
 * only we asked for what it would have been without. `filter` returns what goes to the client: whole events only, so
 * that whatever follows them stands alone; the very chunk, unless something is taken from it.
 *
 * A stream of named events begins before its first token does (/v1/responses: at once). What only announces the answer
 * is held back until there is one, so that until then another instance may still give it, as for the other streams.
 */
export class AnswerObserver {
  readonly observed: Observed = {
    ttftMs: undefined,
    lastTokenMs: undefined,
    tokens: 0,
    usage: undefined,
    inBandError: false,
  };
  private readonly form: AnswerForm;
  private readonly strip: boolean;
  private readonly whole = new WholeAnswer();
  private readonly cutter = new EventCutter();
  private kept: Buffer[] = [];
  private changed = false;
  private sawToken = false;
  private named: boolean | undefined;
  private messages = false;
  private opened = false;
  /** events of the stream so far */
  events = 0;
  private opening: Buffer[] = [];
  private openingBytes = 0;
  private torn = false;
  /** last content event of a choice, until the next event shows whether it is the last of the stream */
  private finishing: Buffer | undefined;

  /** `strip`: the usage event is ours alone. */
  constructor(form: AnswerForm, strip: boolean) {
    this.form = form;
    this.strip = strip && form === 'events';
  }

  get surface(): Surface {
    if (this.messages) return 'messages';
    return this.named ? 'responses' : 'completions';
  }

  /** True while what has gone to the client ends with a whole event, so that one of ours may follow. */
  get atBoundary(): boolean {
    return this.form === 'events' && !this.torn;
  }

  /**
   * `atMs`: since dispatch. `cut`: the chunk's events, where the door has cut them already. Undefined when nothing of
   * it is for the client yet.
   */
  filter(chunk: Buffer, atMs: number, cut?: EventCutter): Buffer | undefined {
    if (this.form !== 'events') {
      if (this.form === 'whole') this.whole.push(chunk);
      return chunk;
    }
    const { events, kinds, whole, torn } = cut ?? this.cutter.push(chunk);
    this.torn = torn;
    this.kept.length = 0;
    this.changed = false;
    this.sawToken = false;
    for (let i = 0; i < events.length; i++) this.read(events[i] as Buffer, kinds[i] as SseKind);
    if (!this.opened) return this.hold();
    if (this.opening.length > 0) this.kept.unshift(...this.opening.splice(0));
    else if (whole && !this.changed && this.finishing === undefined) return this.note(chunk, atMs);
    if (this.kept.length === 0) return undefined;
    return this.note(this.kept.length === 1 ? (this.kept[0] as Buffer) : Buffer.concat(this.kept), atMs);
  }

  /**
   * The answer is complete. `told`: what the door has read of it already. Returns bytes still held back for the client.
   */
  finish(atMs: number, told?: AnswerTold): Buffer | undefined {
    if (this.form === 'events') return this.rest(told ? told.rest : this.cutter.rest());
    this.observed.lastTokenMs = atMs;
    if (told) this.observed.usage = told.usage;
    else if (this.form === 'whole') this.observed.usage = this.whole.usage();
    return undefined;
  }

  /** Whole events of a stream that are held back for the client, and what is to follow them. */
  rest(following?: Buffer): Buffer | undefined {
    this.kept.length = 0;
    this.release();
    const rest = [...this.opening.splice(0), ...this.kept, ...(following ? [following] : [])];
    return rest.length > 0 ? Buffer.concat(rest) : undefined;
  }

  private note(out: Buffer, atMs: number): Buffer {
    this.observed.ttftMs ??= atMs;
    if (this.sawToken) this.observed.lastTokenMs = atMs;
    return out;
  }

  /** Keeps the announcing events, unless they are too large to be that. */
  private hold(): Buffer | undefined {
    for (const event of this.kept) this.openingBytes += event.length;
    this.opening.push(...this.kept);
    if (this.openingBytes <= MAX_OPENING_BYTES) return undefined;
    this.opened = true;
    return Buffer.concat(this.opening.splice(0));
  }

  private read(event: Buffer, kind: SseKind): void {
    this.events += 1;
    if (!isComment(event)) this.named ??= isNamed(event);
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
        this.changed = true;
        this.release(FINGERPRINT.exec(text)?.[0]);
        return;
      }
    }
    this.release();
    if (this.strip && kind === 'token' && event.includes(FINISH)) this.finishing = event;
    else this.kept.push(event);
  }

  /** Lets the held event go; with the fingerprint that vLLM stamps on it where no usage event follows. */
  private release(fingerprint?: string): void {
    const event = this.finishing;
    if (!event) return;
    this.finishing = undefined;
    this.changed = true;
    const end = event.length - OBJECT_END.length;
    if (fingerprint === undefined || !event.subarray(end).equals(OBJECT_END)) this.kept.push(event);
    else this.kept.push(event.subarray(0, end), Buffer.from(`,${fingerprint}`), event.subarray(end));
  }
}
