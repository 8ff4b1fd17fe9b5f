import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { ByteSink } from './byte-sink.ts';
import { JsonScanner, KeyTable, OPEN_OBJECT, type Scan } from './json-scanner.ts';
import type { Splice } from './json-splice.ts';
import { type MemberReader, ObjectScanner } from './object-scanner.ts';
import { type Prompt, PROMPT_KEYS, PromptReader } from './prompt-reader.ts';

/** A client's request as it came in, with what routing reads out of it. */
export interface ClientRequest extends Omit<Prompt, 'batch'> {
  method: string;
  /** path with query */
  path: string;
  headers: IncomingHttpHeaders;
  /** as received, in pieces */
  body: readonly Buffer[];
  model: string | undefined;
  stream: boolean;
  /** makes the body ask for the usage that the client did not ask for; its event is stripped from the answer */
  usageSplice: Splice | undefined;
  /**
   * canonical prompt: text of every part in template order, or token ids as little-endian uint32; no more of it than is
   * fingerprinted
   */
  prompt: Buffer;
  /** offset in the body behind which nothing of the prompt lies */
  promptEnd: number;
  maxTokens: number;
  /** sequences that the call asks for: n × prompts in the batch */
  sequences: number;
  priority: number;
  cacheSalt: string;
  /**
   * who asks, as far as the request tells: a short hash of the `user` field or of the credential; '' if neither is
   * there
   */
  client: string;
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
}

/** What an entry has read of a body and its door need not read again. */
export type ReadBefore = Pick<
  ClientRequest,
  | 'model'
  | 'stream'
  | 'usageSplice'
  | 'promptBytes'
  | 'promptEnd'
  | 'maxTokens'
  | 'sequences'
  | 'priority'
  | 'cacheSalt'
>;

/** Routes whose streams understand `stream_options.include_usage`. */
const USAGE_ROUTES = /^\/v1\/(chat\/)?completions(\?|$)/;
/** Routes whose prompts no engine computes: they cost no prefill and fill no cache. */
export const COMPUTES_NOTHING = /^\/((de)?tokenize|v1\/messages\/count_tokens|v1\/(chat\/)?completions\/render)(\?|$)/;
/** Fields that routing needs beside the prompt. */
const FIELDS: ReadonlySet<string> = new Set([
  'model',
  'stream',
  'stream_options',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'n',
  'priority',
  'cache_salt',
  'user',
]);
const KEYS = new KeyTable([...FIELDS, ...PROMPT_KEYS]);
/** A longer value of one of them is not read. */
const MAX_FIELD_BYTES = 65_536;
/** Larger numbers are nonsense; bounded, they cannot upset features that a net learns from. */
const MAX_NUMBER = 1e9;
/** How pydantic, and so vLLM, reads a boolean. */
const TRUE_WORDS: ReadonlySet<unknown> = new Set(['1', 'true', 't', 'yes', 'y', 'on']);
const NUMBER_WORD = /^\s*[+-]?\d{1,30}(\.\d*)?\s*$/;
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/** The last value of a field: its JSON, and where it lies in the body. */
interface FieldValue {
  readonly json: ByteSink;
  start: number;
  end: number;
}

/**
 * Reads a request while its body arrives: each piece is worked through once, and then only the body itself holds it.
 * What cannot be read counts as absent and goes to an engine as it is, whose own error the client then gets.
 */
export class RequestReader implements MemberReader {
  private readonly method: string;
  private readonly path: string;
  private readonly headers: IncomingHttpHeaders;
  private readonly before: ReadBefore | undefined;
  private readonly scanner = new JsonScanner();
  private readonly objects = new ObjectScanner(this.scanner, KEYS);
  private readonly prompt: PromptReader | undefined;
  private readonly fields = new Map<string, FieldValue>();
  private readonly scan: Scan | undefined;
  private received = 0;
  /** offset behind the opening brace */
  private open = 0;
  private isEmpty = true;
  private isComplete = false;

  /** `before`: what the entry of a hop has read; then only the prompt is, up to where it ends. */
  constructor(method: string, path: string, headers: IncomingHttpHeaders, before?: ReadBefore) {
    this.method = method;
    this.path = path;
    this.headers = headers;
    this.before = before;
    if (!isJson(headers)) return;
    if (!COMPUTES_NOTHING.test(path)) this.prompt = new PromptReader(this.scanner, this.objects);
    this.scan = this.body();
  }

  /** bytes of memory held beside the body */
  get heldBytes(): number {
    let bytes = this.prompt?.heldBytes ?? 0;
    for (const { json } of this.fields.values()) bytes += json.heldBytes;
    return bytes;
  }

  /** The next piece of the body. */
  push(piece: Buffer): void {
    const end = this.before?.promptEnd ?? Infinity;
    const wanted = this.received + piece.length > end ? piece.subarray(0, Math.max(0, end - this.received)) : piece;
    this.received += piece.length;
    if (!this.scan || wanted.length === 0) return;
    this.scanner.feed(wanted);
    this.scan.next();
    this.scanner.release();
  }

  /** The body is there, as `body`. */
  finish(body: readonly Buffer[]): ClientRequest {
    const { method, path, headers, before, prompt: reader } = this;
    const { batch = 1, ...prompt } = reader?.finish() ?? NO_PROMPT;
    const stream = isTrue(this.read('stream'));
    const model = this.read('model');
    const cacheSalt = this.read('cache_salt');
    const priority = headers['x-vllm-priority'];
    return {
      method,
      path,
      headers,
      body,
      ...prompt,
      promptEnd: reader?.end ?? 0,
      model: typeof model === 'string' ? model : undefined,
      stream,
      usageSplice: stream && USAGE_ROUTES.test(path) && this.isComplete ? this.usageSplice() : undefined,
      maxTokens:
        positive(this.read('max_completion_tokens')) ||
        positive(this.read('max_tokens')) ||
        positive(this.read('max_output_tokens')),
      sequences: Math.min(MAX_NUMBER, (positive(this.read('n')) || 1) * batch),
      priority: (priority === undefined ? numberOf(this.read('priority')) : Number(priority)) || 0,
      cacheSalt: typeof cacheSalt === 'string' ? cacheSalt : '',
      client: clientOf(this.read('user'), headers),
      sloTtftMs: positive(Number(headers['x-slo-ttft-ms'])) || undefined,
      sloTpotMs: positive(Number(headers['x-slo-tpot-ms'])) || undefined,
      ...before,
    };
  }

  member(key: string, byte: number): Scan | boolean {
    this.isEmpty = false;
    if (!FIELDS.has(key)) return this.prompt?.read(key, byte) ?? false;
    const { scanner, fields } = this;
    const field = fields.get(key) ?? { json: new ByteSink(MAX_FIELD_BYTES), start: 0, end: 0 };
    fields.set(key, field);
    field.start = scanner.offset;
    field.json.reset();
    scanner.begin();
    if (!scanner.walk(field.json)) return this.keepOn(field);
    field.end = scanner.offset;
    return true;
  }

  private *body(): Scan {
    const { scanner } = this;
    let byte = scanner.peek();
    for (let marks = 0; byte !== OPEN_OBJECT; byte = scanner.peek()) {
      if (byte < 0) yield;
      // Python's reader takes a byte order mark, and nothing else.
      else if (byte === BYTE_ORDER_MARK[marks++]) scanner.advance();
      else return;
    }
    this.open = scanner.offset + 1;
    yield* this.objects.scan(this);
    this.isComplete = true;
    for (byte = scanner.peek(); byte < 0; byte = scanner.peek()) yield;
    this.isComplete = false;
  }

  /** Goes on with the value of a field that its first piece does not end. */
  private *keepOn(field: FieldValue): Scan {
    do yield;
    while (!this.scanner.walk(field.json));
    field.end = this.scanner.offset;
  }

  /** Value of a field; undefined where it is absent or cannot be read. */
  private read(key: string): unknown {
    return parsed(this.fields.get(key)?.json);
  }

  /** Asks the engine for the usage chunk: it corrects the cache view and tells token counts. */
  private usageSplice(): Splice | undefined {
    const there = this.fields.get('stream_options');
    const options = parsed(there?.json);
    // A client that sends a malformed stream_options gets the engine's own error for it.
    if (there && options !== null && !isObject(options)) return undefined;
    const given = isObject(options) ? options : {};
    if (isTrue(given['include_usage'])) return undefined;
    // Alone, continuous_usage_stats does nothing in vLLM; beside the include_usage that we add, it would.
    const continuous = 'continuous_usage_stats' in given ? { continuous_usage_stats: false } : {};
    const text = jsonOf({ ...given, ...continuous, include_usage: true });
    if (text === undefined) return undefined;
    if (there) return { start: there.start, end: there.end, text };
    return { start: this.open, end: this.open, text: `"stream_options":${text}${this.isEmpty ? '' : ','}` };
  }
}

const NO_PROMPT: Prompt = { prompt: Buffer.alloc(0), promptBytes: 0, promptIsTokens: false, batch: 1 };

/** Hashed, since credentials are not to be kept. */
function clientOf(user: unknown, headers: IncomingHttpHeaders): string {
  const key = typeof user === 'string' && user !== '' ? user : (headers.authorization ?? headers['x-api-key']);
  return typeof key === 'string' && key !== '' ? createHash('sha1').update(key).digest('base64url').slice(0, 12) : '';
}

/** False for the types that are known to be something else; whatever else may be JSON says so by its first byte. */
function isJson(headers: IncomingHttpHeaders): boolean {
  const type = headers['content-type'] ?? '';
  return !type.startsWith('multipart/') && !type.startsWith('audio/');
}

function parsed(json: ByteSink | undefined): unknown {
  if (!json || json.full) return undefined;
  try {
    return JSON.parse(json.bytes.toString());
  } catch {
    return undefined;
  }
}

/** Undefined for what is nested too deeply for the stack. */
function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isTrue(value: unknown): boolean {
  return value === true || value === 1 || (typeof value === 'string' && TRUE_WORDS.has(value.toLowerCase()));
}

/** A number, or a string that is one, as pydantic takes it; 0 for anything else. */
function numberOf(value: unknown): number {
  const number = typeof value === 'string' && NUMBER_WORD.test(value) ? Number(value) : value;
  return typeof number === 'number' && Number.isFinite(number) ? number : 0;
}

function positive(value: unknown): number {
  return Math.min(MAX_NUMBER, Math.max(0, numberOf(value)));
}
