/** A field of an event that may come before its data. */
const FIELD = /^(event|id|retry):/;
const ERROR_KEYS = ['"error"', '"object":"error"', '"object": "error"'].map((text) => Buffer.from(text));
const DATA = Buffer.from('data:');
const OPEN_OBJECT = 0x7b;
const BLANK = 0x20;
const NAMED = Buffer.from('event:');
const NAMED_LATER = Buffer.from('\nevent:');
/** Fields before the name of an event (`id`, `retry`) are short. */
const MAX_FIELDS_BYTES = 256;
const LINE_FEED = 0x0a;
const CARRIAGE_RETURN = 0x0d;
const COMMENT = 0x3a;
const SHORTEST_EVENT = 'data:'.length;
const DONE = Buffer.from('data: [DONE]');
const USAGE = Buffer.from('"usage":{');
const EMPTY_CHOICES = Buffer.from('"choices":[]');
const ROLE_CHUNK = Buffer.from('"role":"assistant","content":""');

/**
 * What a server-sent event of vLLM's stream is; `frame`: one that only says where the answer stands (docs: vLLM's
 * entrypoints/openai and entrypoints/anthropic).
 */
export type SseKind = 'token' | 'role' | 'usage' | 'error' | 'done' | 'frame';

/**
 * Events with a name of their own: those of /v1/messages and /v1/responses. Tokens of the latter are all that end in
 * `.delta`.
 */
const NAMED_KINDS: ReadonlyMap<string, SseKind> = new Map([
  ['content_block_delta', 'token'],
  ['message_delta', 'usage'],
  ['message_stop', 'done'],
  ['response.completed', 'usage'],
  ['response.incomplete', 'usage'],
  ['response.failed', 'error'],
  ['error', 'error'],
]);

/** An event larger than this cannot be vLLM's: it is passed on in pieces. */
const MAX_EVENT_BYTES = 4 * 1024 * 1024;

/**
 * Cuts a byte stream into server-sent events: lines up to a blank one, with line feeds or CRLF. vLLM writes whole
 * events, so nearly always an event is a view of its chunk and nothing is copied. Only what a packet boundary splits is
 * held until the rest comes. Each byte is searched once.
 */
export class EventCutter {
  /** events that the newest chunk completed, separators included; valid until the next */
  readonly events: Buffer[] = [];
  readonly kinds: SseKind[] = [];
  /** the events are the bytes of the newest chunk, no more and no fewer */
  whole = true;
  /** an event was too large to hold: what follows may begin within one */
  torn = false;
  private held: Buffer[] = [];
  private heldBytes = 0;
  /** the line that the stream is in has no character yet */
  private blank = true;

  push(chunk: Buffer): this {
    this.events.length = 0;
    this.kinds.length = 0;
    const before = this.heldBytes;
    let start = 0;
    let from = 0;
    for (;;) {
      const feed = chunk.indexOf(LINE_FEED, from);
      if (feed < 0) break;
      const empty = this.blank && (feed === from || (feed === from + 1 && chunk[from] === CARRIAGE_RETURN));
      from = feed + 1;
      this.blank = true;
      if (!empty) continue;
      this.emit(chunk.subarray(start, from));
      start = from;
    }
    if (from < chunk.length) this.blank = this.blank && chunk.length === from + 1 && chunk[from] === CARRIAGE_RETURN;
    if (start < chunk.length) this.hold(chunk.subarray(start));
    this.whole = before === 0 && this.heldBytes === 0;
    return this;
  }

  /** Takes what came after the last separator. */
  rest(): Buffer | undefined {
    if (this.heldBytes === 0) return undefined;
    const rest = Buffer.concat(this.held);
    this.held = [];
    this.heldBytes = 0;
    return rest;
  }

  private emit(end: Buffer): void {
    let event = end;
    if (this.heldBytes > 0) {
      this.held.push(end);
      event = Buffer.concat(this.held);
      this.held = [];
      this.heldBytes = 0;
    }
    this.events.push(event);
    this.kinds.push(classifyEvent(event));
  }

  private hold(part: Buffer): void {
    this.held.push(part);
    this.heldBytes += part.length;
    if (this.heldBytes <= MAX_EVENT_BYTES) return;
    this.torn = true;
    this.events.push(this.rest() as Buffer);
    this.kinds.push('frame');
  }
}

/** A comment, which keeps a connection alive and says nothing. */
export function isComment(event: Buffer): boolean {
  return event[0] === COMMENT || event.length < SHORTEST_EVENT;
}

/** True for the beginning of a stream of named events. */
export function isNamed(event: Buffer): boolean {
  return nameStart(event) >= 0;
}

/** Comments and blank lines are frames. */
export function classifyEvent(event: Buffer): SseKind {
  if (isComment(event)) return 'frame';
  const named = nameStart(event);
  if (named >= 0) {
    const name = event.toString('latin1', named, Math.max(named, event.indexOf(LINE_FEED, named))).trim();
    return NAMED_KINDS.get(name) ?? (name.endsWith('.delta') ? 'token' : 'frame');
  }
  if (isError(event)) return 'error';
  if (event.length < 20 && startsWith(event, DONE)) return 'done';
  if (event.includes(EMPTY_CHOICES) && event.includes(USAGE)) return 'usage';
  if (event.includes(ROLE_CHUNK)) return 'role';
  return 'token';
}

/** Where the name of an event begins, behind its field, which other fields may precede; −1: it has none. */
function nameStart(event: Buffer): number {
  if (startsWith(event, NAMED)) return NAMED.length;
  if (event[0] === DATA[0]) return -1;
  const at = event.subarray(0, MAX_FIELDS_BYTES).indexOf(NAMED_LATER);
  return at < 0 ? -1 : at + NAMED_LATER.length;
}

/** Whether the data is an object that begins with an error, whatever blanks stand in it; older versions say so in `object`. */
function isError(event: Buffer): boolean {
  if (!startsWith(event, DATA)) return false;
  const at = behindBlanks(event, DATA.length);
  if (event[at] !== OPEN_OBJECT) return false;
  const key = behindBlanks(event, at + 1);
  return ERROR_KEYS.some(
    (one) => event.length >= key + one.length && event.compare(one, 0, one.length, key, key + one.length) === 0,
  );
}

function behindBlanks(event: Buffer, from: number): number {
  let at = from;
  while (event[at] === BLANK) at += 1;
  return at;
}

/** Token counts of an answer, as the engine reports them; undefined where it does not. */
export interface Usage {
  promptTokens: number | undefined;
  outputTokens: number | undefined;
  cachedTokens: number | undefined;
  /** vLLM's own time from its queue to the first token, if it runs with --enable-per-request-metrics */
  engineTtftMs: number | undefined;
}

/**
 * Reads usage from a JSON text: a whole answer, or an event of a stream. Undefined if there is none in it. The Messages
 * API counts the prompt in three parts, `input_tokens` being only what was neither found in the cache nor put there;
 * the prompt is their sum.
 */
export function readUsage(text: string): Usage | undefined {
  let body: unknown;
  try {
    body = JSON.parse(text.slice(dataStart(text)));
  } catch {
    return undefined;
  }
  const usage = field(body, 'usage') ?? field(field(body, 'response'), 'usage');
  if (typeof usage !== 'object' || usage === null) return undefined;
  const metrics = field(body, 'metrics');
  const cacheRead = count(field(usage, 'cache_read_input_tokens'));
  const input = count(field(usage, 'input_tokens'));
  const details = field(usage, 'prompt_tokens_details') ?? field(usage, 'input_tokens_details');
  return {
    promptTokens:
      count(field(usage, 'prompt_tokens')) ??
      sum(input, (cacheRead ?? 0) + (count(field(usage, 'cache_creation_input_tokens')) ?? 0)),
    outputTokens: count(field(usage, 'completion_tokens') ?? field(usage, 'output_tokens')),
    cachedTokens: count(field(details, 'cached_tokens')) ?? cacheRead,
    engineTtftMs: sum(amount(field(metrics, 'queue_time_ms')), amount(field(metrics, 'time_to_first_token_ms'))),
  };
}

/** Where the JSON begins: after `data:`, which a line with the event's name may precede. */
function dataStart(text: string): number {
  if (text.startsWith('data:')) return 5;
  return FIELD.test(text) ? text.indexOf('\ndata:') + 6 : 0;
}

function startsWith(bytes: Buffer, start: Buffer): boolean {
  return bytes.length >= start.length && bytes.compare(start, 0, start.length, 0, start.length) === 0;
}

function field(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function amount(value: unknown): number | undefined {
  return typeof value === 'number' && Number.isFinite(value) && value >= 0 ? value : undefined;
}

function count(value: unknown): number | undefined {
  return Number.isSafeInteger(value) ? amount(value) : undefined;
}

function sum(a: number | undefined, b: number | undefined): number | undefined {
  return a === undefined || b === undefined ? undefined : a + b;
}
