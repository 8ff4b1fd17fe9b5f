import { ByteSink, PartDigest } from './byte-sink.ts';
import { MAX_PROMPT_BYTES } from './fingerprint.ts';
import {
  isBetween,
  isEnd,
  isNumber,
  type JsonScanner,
  OPEN_ARRAY,
  OPEN_OBJECT,
  QUOTE,
  type Scan,
} from './json-scanner.ts';
import { type MemberReader, ObjectScanner } from './object-scanner.ts';

/** The canonical prompt, and how many prompts the call holds. */
export interface Prompt {
  /** at most MAX_PROMPT_BYTES of it */
  prompt: Buffer;
  /** bytes of the whole; estimated from the JSON where that is longer than `prompt` */
  promptBytes: number;
  promptIsTokens: boolean;
  batch: number;
}

const FIELDS = ['prompt', 'input', 'messages', 'tools', 'system', 'instructions'] as const;
type Field = (typeof FIELDS)[number];

/** Keys that a prompt is read from, at any depth. */
export const PROMPT_KEYS: readonly string[] = [...FIELDS, 'role', 'content', 'tool_calls', 'text'];

/** What the value of a field is to a prompt. `other`: nothing. */
type Kind = 'null' | 'text' | 'tokens' | 'messages' | 'other';

/** The last value of a field. */
interface Value {
  kind: Kind;
  readonly sink: ByteSink;
  batch: number;
  /** where in the body all that is wanted of it has been read */
  end: number;
}

const NO_PROMPT: Prompt = { prompt: Buffer.alloc(0), promptBytes: 0, promptIsTokens: false, batch: 1 };
const MAX_ROLE_BYTES = 1024;
const START_ROLE = Buffer.from('\u0001');
const END_ROLE = Buffer.from('\u0002');
const USER = Buffer.from('\u0001user\u0002');
const SYSTEM = Buffer.from('\u0001system\u0002');
const NO_ROLE = Buffer.from('undefined');
const NULL_START = 0x6e;

/**
 * Reads the prompt of a request in one form, such that a later turn of a conversation begins with the bytes of the
 * earlier one: tools, then each message as role and text. Only equality of beginnings matters, so it need not be the
 * engine's chat template.
 */
export class PromptReader {
  private readonly scanner: JsonScanner;
  private readonly values = new Map<Field, Value>();
  private readonly message: MessageReader;

  constructor(scanner: JsonScanner, objects: ObjectScanner) {
    this.scanner = scanner;
    this.message = new MessageReader(scanner, objects);
  }

  /** bytes of memory held */
  get heldBytes(): number {
    let bytes = this.message.heldBytes;
    for (const { sink } of this.values.values()) bytes += sink.heldBytes;
    return bytes;
  }

  /** Offset in the body behind which nothing of the prompt lies. */
  get end(): number {
    let end = 0;
    for (const value of this.values.values()) end = Math.max(end, value.end);
    return end;
  }

  /** How to read the value of a field; false: the field is none of a prompt. */
  read(key: string, byte: number): Scan | false {
    const field = FIELDS.find((name) => name === key);
    return field ? this.value(field, byte) : false;
  }

  /** The prompt of what has been read. */
  finish(): Prompt {
    const named = this.values.get('prompt');
    const raw = named && named.kind !== 'null' ? named : this.values.get('input');
    if (raw?.kind === 'text' || raw?.kind === 'tokens') {
      return {
        prompt: Buffer.from(raw.sink.bytes),
        promptBytes: raw.sink.offered,
        promptIsTokens: raw.kind === 'tokens',
        batch: raw.batch,
      };
    }
    const messages = [this.values.get('messages'), raw].find((value) => value?.kind === 'messages');
    if (!messages) return NO_PROMPT;
    const parts: Buffer[] = [];
    let promptBytes = 0;
    for (const [field, before] of [
      ['tools', undefined],
      ['system', SYSTEM],
      ['instructions', SYSTEM],
    ] as const) {
      const value = this.values.get(field);
      if (!value) continue;
      parts.push(...(before ? [before] : []), value.sink.bytes);
      promptBytes += (before?.length ?? 0) + value.sink.offered;
    }
    parts.push(messages.sink.bytes);
    promptBytes += messages.sink.offered;
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    return {
      prompt: Buffer.concat(parts, Math.min(bytes, MAX_PROMPT_BYTES)),
      promptBytes,
      promptIsTokens: false,
      batch: 1,
    };
  }

  private *value(field: Field, byte: number): Scan {
    const { scanner } = this;
    const value: Value = {
      kind: 'other',
      sink: this.values.get(field)?.sink ?? new ByteSink(MAX_PROMPT_BYTES),
      batch: 1,
      end: Infinity,
    };
    value.sink.reset();
    // As in JSON parsers, the last of equal keys counts.
    this.values.set(field, value);
    if (field === 'system' || field === 'instructions') yield* this.message.content(byte, value.sink);
    else if (field === 'messages' && byte === OPEN_ARRAY) yield* this.list(value, true);
    else if (field === 'messages') yield* this.skip();
    else if (field === 'tools') {
      scanner.begin();
      while (!scanner.walk(value.sink)) yield;
    } else if (byte === OPEN_ARRAY) yield* this.list(value, false);
    else if (byte === QUOTE) {
      // A string `input` of the Responses API is the same as one message of the user; its next turn says so.
      value.kind = field === 'input' ? 'messages' : 'text';
      if (field === 'input') value.sink.append(USER);
      scanner.beginString();
      while (!scanner.string(value.sink)) yield;
    } else {
      if (byte === NULL_START) value.kind = 'null';
      yield* this.skip();
    }
    value.end = Math.min(value.end, scanner.offset);
  }

  /** An array: of messages, of token ids, or of several prompts, of which the first stands for all. */
  private *list(value: Value, onlyMessages: boolean): Scan {
    const { scanner } = this;
    scanner.advance();
    let byte = scanner.peek();
    for (; byte < 0; byte = scanner.peek()) yield;
    if (onlyMessages || byte === OPEN_OBJECT || isEnd(byte)) yield* this.messages(value);
    else if (isNumber(byte)) yield* this.tokens(value);
    else {
      value.kind = 'text';
      if (byte === QUOTE) {
        scanner.beginString();
        while (!scanner.string(value.sink)) yield;
      } else if (byte === OPEN_ARRAY) {
        scanner.advance();
        for (byte = scanner.peek(); byte < 0; byte = scanner.peek()) yield;
        if (isNumber(byte)) yield* this.tokens(value);
        else yield* this.skip(1);
      } else yield* this.skip();
      value.end = Math.min(value.end, scanner.offset);
      yield* this.skip(1);
      value.batch = 1 + scanner.commas;
    }
  }

  private *messages(value: Value): Scan {
    const { scanner } = this;
    value.kind = 'messages';
    for (;;) {
      let byte = scanner.peek();
      for (; byte < 0; byte = scanner.peek()) yield;
      if (value.sink.full) {
        value.end = scanner.offset;
        yield* this.skip(1);
        value.sink.pass(scanner.offset - value.end);
        return;
      }
      if (isEnd(byte) || isBetween(byte)) scanner.advance();
      else if (byte === OPEN_OBJECT) yield* this.message.read(value.sink);
      else {
        scanner.begin();
        while (!scanner.walk()) yield;
      }
      if (isEnd(byte)) return;
    }
  }

  private *tokens(value: Value): Scan {
    const { scanner } = this;
    value.kind = 'tokens';
    scanner.beginTokens();
    while (!scanner.tokens(value.sink)) yield;
    // With what ends the last of them.
    value.end = scanner.offset + 1;
    while (!scanner.walk()) yield;
    value.sink.pass(4 * scanner.commas);
  }

  private *skip(depth = 0): Scan {
    this.scanner.begin(depth);
    while (!this.scanner.walk()) yield;
  }
}

/** Reads messages, one at a time. */
class MessageReader implements MemberReader {
  private readonly scanner: JsonScanner;
  private readonly objects: ObjectScanner;
  private readonly role = new ByteSink(MAX_ROLE_BYTES);
  private readonly text = new ByteSink(MAX_PROMPT_BYTES);
  private readonly calls = new ByteSink(MAX_PROMPT_BYTES);
  private readonly part: PartReader;
  private hasRole = false;

  constructor(scanner: JsonScanner, objects: ObjectScanner) {
    this.scanner = scanner;
    this.objects = objects;
    this.part = new PartReader(scanner, objects);
  }

  get heldBytes(): number {
    return this.text.heldBytes + this.calls.heldBytes;
  }

  /** Appends a message: role, text, tool calls, in whatever order they come. */
  *read(sink: ByteSink): Scan {
    const { role, text, calls } = this;
    role.reset();
    text.reset();
    calls.reset();
    this.hasRole = false;
    yield* this.objects.scan(this);
    sink.append(START_ROLE);
    if (this.hasRole) sink.appendSink(role);
    else sink.append(NO_ROLE);
    sink.append(END_ROLE);
    sink.appendSink(text);
    sink.appendSink(calls);
  }

  member(key: string, byte: number): Scan | boolean {
    this.hasRole ||= key === 'role';
    if (key === 'role') return byte === QUOTE ? this.string(this.role) : this.raw(this.role);
    if (key === 'content') return byte === QUOTE ? this.string(this.text) : this.content(byte, this.text);
    return key === 'tool_calls' ? this.raw(this.calls) : false;
  }

  /** Text of a message, or of the instructions before it. */
  *content(byte: number, sink: ByteSink): Scan {
    sink.reset();
    if (byte === OPEN_ARRAY) return yield* this.parts(sink);
    const scan = byte === QUOTE ? this.string(sink) : this.raw(sink);
    if (scan !== true) yield* scan;
    if (byte === NULL_START) sink.reset();
  }

  private string(sink: ByteSink): Scan | true {
    sink.reset();
    this.scanner.beginString();
    return this.scanner.string(sink) || stringOn(this.scanner, sink);
  }

  private raw(sink: ByteSink): Scan | true {
    sink.reset();
    this.scanner.begin();
    return this.scanner.walk(sink) || walkOn(this.scanner, sink);
  }

  private *parts(sink: ByteSink): Scan {
    const { scanner, part } = this;
    scanner.advance();
    for (;;) {
      let byte = scanner.peek();
      for (; byte < 0; byte = scanner.peek()) yield;
      if (sink.full) {
        const from = scanner.offset;
        scanner.begin(1);
        while (!scanner.walk()) yield;
        sink.pass(scanner.offset - from);
        return;
      }
      if (isEnd(byte) || isBetween(byte)) scanner.advance();
      else yield* part.read(byte, sink);
      if (isEnd(byte)) return;
    }
  }
}

/** Reads the parts of a message's content: their text, or what stands for anything else. */
class PartReader implements MemberReader {
  private readonly scanner: JsonScanner;
  private readonly objects: ObjectScanner;
  private readonly digest = new PartDigest();
  private sink: ByteSink | undefined;
  private start = { length: 0, offered: 0 };
  private hasText = false;

  constructor(scanner: JsonScanner, objects: ObjectScanner) {
    this.scanner = scanner;
    this.objects = objects;
  }

  *read(byte: number, sink: ByteSink): Scan {
    const { scanner, digest } = this;
    this.sink = sink;
    this.start.length = sink.length;
    this.start.offered = sink.offered;
    this.hasText = false;
    digest.begin();
    if (byte === OPEN_OBJECT) yield* this.objects.scan(this, digest);
    else {
      scanner.begin();
      while (!scanner.walk(digest)) yield;
    }
    if (!this.hasText) digest.end(sink);
  }

  member(key: string, byte: number): Scan | boolean {
    const { sink, start } = this;
    if (key !== 'text' || byte !== QUOTE || !sink) return false;
    this.hasText = true;
    this.digest.stop();
    sink.rewind(start.length, start.offered);
    this.scanner.beginString();
    return this.scanner.string(sink) || stringOn(this.scanner, sink);
  }
}

/** Goes on with a string that its first chunk does not end. */
function* stringOn(scanner: JsonScanner, sink: ByteSink): Scan {
  do yield;
  while (!scanner.string(sink));
}

/** Goes on with a value that its first chunk does not end. */
function* walkOn(scanner: JsonScanner, sink: ByteSink): Scan {
  do yield;
  while (!scanner.walk(sink));
}
