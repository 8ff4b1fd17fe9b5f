import type { ByteSink, Sink } from './byte-sink.ts';

export const QUOTE = 0x22;
export const OPEN_OBJECT = 0x7b;
export const OPEN_ARRAY = 0x5b;
const CLOSE_OBJECT = 0x7d;
const CLOSE_ARRAY = 0x5d;
export const BACKSLASH = 0x5c;
export const COLON = 0x3a;
const COMMA = 0x2c;
const SPACE = 0x20;
const LETTER_U = 0x75;
const DOT = 0x2e;
const DIGIT_0 = 0x30;
const DIGIT_9 = 0x39;
/** Bytes that are looked at one by one before a native search is worth its call. */
const DENSE_BYTES = 48;
const NOTHING = Buffer.alloc(0);
/** What a byte is to the walk over a value; from BETWEEN on, no value begins with it. */
const ORDINARY = 0;
const WHITE = 1;
const STRING = 2;
const OPEN = 3;
const BETWEEN = 4;
const CLOSE = 5;
const KINDS = new Uint8Array(256).fill(WHITE, 0, SPACE + 1);
KINDS[QUOTE] = STRING;
for (const open of [OPEN_OBJECT, OPEN_ARRAY]) KINDS[open] = OPEN;
for (const close of [CLOSE_OBJECT, CLOSE_ARRAY]) KINDS[close] = CLOSE;
for (const between of [COMMA, COLON]) KINDS[between] = BETWEEN;
/** What a backslash and a byte stand for: mostly the byte itself. */
const ESCAPES = Uint8Array.from({ length: 256 }, (_, byte) => byte);
for (const [letter, byte] of [
  [0x62, 0x08],
  [0x66, 0x0c],
  [0x6e, 0x0a],
  [0x72, 0x0d],
  [0x74, 0x09],
] as const)
  ESCAPES[letter] = byte;
/** `escape` between two escapes, and directly behind a backslash; from 4 down to 1: hex digits that are missing. */
const NO_ESCAPE = 0;
const BACKSLASH_SEEN = -1;
const REPLACEMENT = 0xfffd;

/** Steps of a reading: each `yield` waits for the next chunk. */
export type Scan = Generator<undefined, void, undefined>;

/**
 * A cursor over JSON text that arrives in chunks. Each of `walk`, `string` and `tokens` does as much as the chunk
 * allows and is called again with the next one while it returns false. Depth is a counter, so nothing nests, and
 * nothing is allocated for a value. Malformed text is never an error: it is read somehow, and always to the end.
 */
export class JsonScanner {
  /** commas seen at the depth of 1 since `begin` */
  commas = 0;
  private chunk: Buffer = NOTHING;
  private at = 0;
  private end = 0;
  private base = 0;
  private depth = 0;
  private inString = false;
  /** the chunk before ended behind a backslash */
  private escaped = false;
  private inScalar = false;
  private escape = NO_ESCAPE;
  private codeUnit = 0;
  /** first half of a surrogate pair */
  private high = 0;
  private token = 0;
  private inFraction = false;
  /** the next ones in this chunk, where they have been searched for */
  private quoteAt = -1;
  private backslashAt = -1;

  /** bytes before the cursor, since the first chunk */
  get offset(): number {
    return this.base + this.at;
  }

  feed(chunk: Buffer): void {
    this.base += this.end;
    this.chunk = chunk;
    this.at = 0;
    this.end = chunk.length;
    this.quoteAt = -1;
    this.backslashAt = -1;
  }

  /** Lets go of the chunk, which has been read. */
  release(): void {
    this.chunk = NOTHING;
  }

  /** The next byte that is not white space, -1 where the chunk has none. */
  peek(): number {
    while (this.at < this.end) {
      const byte = this.chunk[this.at] as number;
      if (byte > SPACE) return byte;
      this.at += 1;
    }
    return -1;
  }

  advance(): void {
    this.at += 1;
  }

  /** Prepares `walk`; `depth` 1: over what is left of the object or array that the cursor is in, its end included. */
  begin(depth = 0): void {
    this.depth = depth;
    this.commas = 0;
    this.inString = false;
    this.escaped = false;
    this.inScalar = false;
  }

  /** Goes to the end of a value. `sink` gets its JSON without white space. */
  walk(sink?: Sink): boolean {
    const { chunk, end } = this;
    let { at, depth, inScalar } = this;
    let done = false;
    for (;;) {
      if (this.inString) {
        const from = at;
        at = this.stringEnd(from);
        sink?.copy(chunk, from, at);
        done = depth === 0 && !this.inString;
        if (done || this.inString) break;
      }
      if (at >= end) break;
      const byte = chunk[at] as number;
      const kind = KINDS[byte] as number;
      done = depth === 0 && kind !== ORDINARY && (inScalar || kind >= BETWEEN);
      if (done) break;
      at += 1;
      if (kind === WHITE) continue;
      sink?.push(byte);
      if (kind === ORDINARY) inScalar = true;
      else if (kind === STRING) {
        this.inString = true;
        this.escaped = false;
      } else if (kind === OPEN) depth += 1;
      else if (kind === CLOSE) {
        depth -= 1;
        done = depth === 0;
        if (done) break;
      } else if (byte === COMMA && depth === 1) this.commas += 1;
    }
    this.at = at;
    this.depth = depth;
    this.inScalar = inScalar;
    return done;
  }

  /**
   * Goes behind the string under the cursor if it is short, plain and whole in this chunk, and names the key that it
   * is: see KeyTable.
   */
  shortKey(keys: KeyTable, echo: Sink | undefined): string | undefined {
    const { chunk, at } = this;
    const limit = Math.min(this.end, at + DENSE_BYTES);
    for (let close = at + 1; close < limit; close++) {
      const byte = chunk[close];
      if (byte === BACKSLASH) return undefined;
      if (byte !== QUOTE) continue;
      echo?.copy(chunk, at, close + 1);
      this.at = close + 1;
      return keys.nameOf(chunk, at + 1, close);
    }
    return undefined;
  }

  /** Prepares `string`, with the cursor on its opening quote. */
  beginString(): void {
    this.at += 1;
    this.begin();
    this.escape = NO_ESCAPE;
    this.high = 0;
  }

  /**
   * Goes behind a string's closing quote; `sink` gets its text in UTF-8. A full sink is passed by at the speed of
   * `walk`.
   */
  string(sink: ByteSink): boolean {
    const { chunk, end } = this;
    while (this.at < end) {
      if (this.escape !== NO_ESCAPE) {
        this.unescape(chunk[this.at++] as number, sink);
        continue;
      }
      if (sink.full) {
        const from = this.at;
        this.inString = true;
        this.at = this.stringEnd(from);
        sink.pass(this.at - from);
        return !this.inString;
      }
      const stop = this.nextSpecial();
      if (stop > this.at) {
        this.endHigh(sink);
        sink.copy(chunk, this.at, stop);
      }
      this.at = stop;
      if (stop === end) return false;
      this.at += 1;
      if (chunk[stop] === QUOTE) {
        this.endHigh(sink);
        return true;
      }
      const next = this.at < end ? (chunk[this.at] as number) : LETTER_U;
      if (next === LETTER_U) this.escape = BACKSLASH_SEEN;
      else {
        this.endHigh(sink);
        sink.push(ESCAPES[next] as number);
        this.at += 1;
      }
    }
    return false;
  }

  /** Prepares `tokens`, with the cursor behind an array's opening bracket. */
  beginTokens(): void {
    this.begin(1);
    this.token = 0;
    this.inFraction = false;
  }

  /**
   * Reads an array of token ids as little-endian uint32, until its end, until `sink` is full, or until something is no
   * number. The rest of the array, up to its end, is for `walk`.
   */
  tokens(sink: ByteSink): boolean {
    const { chunk, end } = this;
    while (this.at < end) {
      const byte = chunk[this.at] as number;
      if (byte >= DIGIT_0 && byte <= DIGIT_9) {
        if (!this.inFraction) this.token = this.token * 10 + byte - DIGIT_0;
      } else if (byte === COMMA || byte === CLOSE_ARRAY) {
        for (let shift = 0; shift < 32; shift += 8) sink.push((this.token >>> shift) & 0xff);
        this.token = 0;
        this.inFraction = false;
        if (byte === CLOSE_ARRAY || sink.full) return true;
      } else if (byte === QUOTE || (byte | 0x20) === OPEN_OBJECT || byte === CLOSE_OBJECT) {
        return true;
      } else if (byte === DOT) {
        this.inFraction = true;
      }
      this.at += 1;
    }
    return false;
  }

  /**
   * Index behind the closing quote of the string that the cursor is in; the chunk's end, with `inString` still true,
   * where it is not closed here.
   */
  private stringEnd(from: number): number {
    const { chunk, end } = this;
    let at = this.escaped ? from + 1 : from;
    while (at < end) {
      const near = Math.min(end, at + DENSE_BYTES);
      while (at < near) {
        const byte = chunk[at] as number;
        if (byte === QUOTE) return this.closeString(at);
        at += byte === BACKSLASH ? 2 : 1;
      }
      if (at >= end) break;
      const quote = chunk.indexOf(QUOTE, at);
      const stop = quote < 0 ? end : quote;
      let slashes = 0;
      while (stop - slashes > at && chunk[stop - slashes - 1] === BACKSLASH) slashes += 1;
      if (quote >= 0 && slashes % 2 === 0) return this.closeString(quote);
      // Behind an escaped quote, or behind the chunk: one further where its last backslash escapes what comes.
      at = quote >= 0 ? quote + 1 : end + (slashes % 2);
    }
    this.escaped = at > end;
    return end;
  }

  private closeString(quote: number): number {
    this.inString = false;
    this.escaped = false;
    return quote + 1;
  }

  /** Index of the next quote or backslash; the chunk's end if there is none. */
  private nextSpecial(): number {
    const { chunk, end } = this;
    const near = Math.min(end, this.at + DENSE_BYTES);
    for (let at = this.at; at < near; at++) if (chunk[at] === QUOTE || chunk[at] === BACKSLASH) return at;
    if (near === end) return end;
    if (this.quoteAt < near) this.quoteAt = indexIn(chunk, QUOTE, near);
    if (this.backslashAt < near) this.backslashAt = indexIn(chunk, BACKSLASH, near);
    return Math.min(this.quoteAt, this.backslashAt);
  }

  private unescape(byte: number, sink: ByteSink): void {
    if (this.escape !== BACKSLASH_SEEN) {
      this.codeUnit = this.codeUnit * 16 + hexDigit(byte);
      this.escape -= 1;
      if (this.escape === NO_ESCAPE) this.pushUnit(this.codeUnit, sink);
    } else if (byte === LETTER_U) {
      this.escape = 4;
      this.codeUnit = 0;
    } else {
      this.escape = NO_ESCAPE;
      this.endHigh(sink);
      sink.push(ESCAPES[byte] as number);
    }
  }

  private pushUnit(unit: number, sink: ByteSink): void {
    const isLow = unit >= 0xdc00 && unit <= 0xdfff;
    if (this.high !== 0 && isLow) {
      pushUtf8(sink, 0x10000 + ((this.high - 0xd800) << 10) + unit - 0xdc00);
      this.high = 0;
      return;
    }
    this.endHigh(sink);
    if (unit >= 0xd800 && unit <= 0xdbff) this.high = unit;
    else pushUtf8(sink, isLow ? REPLACEMENT : unit);
  }

  /** Half of a pair that was not followed by the other. */
  private endHigh(sink: ByteSink): void {
    if (this.high !== 0) pushUtf8(sink, REPLACEMENT);
    this.high = 0;
  }
}

/** Keys that are wanted, found by their bytes without making a string of any. */
export class KeyTable {
  private readonly byStart = new Map<number, { name: string; bytes: Buffer }[]>();

  constructor(names: readonly string[]) {
    for (const name of names) {
      const bytes = Buffer.from(name);
      const start = startOf(bytes, 0, bytes.length);
      this.byStart.set(start, [...(this.byStart.get(start) ?? []), { name, bytes }]);
    }
  }

  /** The key that these bytes are; '' for none that is wanted. */
  nameOf(source: Buffer, from: number, to: number): string {
    const candidates = from < to ? this.byStart.get(startOf(source, from, to)) : undefined;
    if (!candidates) return '';
    for (const { name, bytes } of candidates) if (source.compare(bytes, 0, bytes.length, from, to) === 0) return name;
    return '';
  }
}

function startOf(source: Buffer, from: number, to: number): number {
  return (to - from) * 256 + (source[from] as number);
}

export function isEnd(byte: number): boolean {
  return byte === CLOSE_OBJECT || byte === CLOSE_ARRAY;
}

/** True for what stands between the values of a list. */
export function isBetween(byte: number): boolean {
  return byte === COMMA || byte === COLON;
}

/** True for the beginning of a number. */
export function isNumber(byte: number): boolean {
  return byte === 0x2d || (byte >= DIGIT_0 && byte <= DIGIT_9);
}

function indexIn(chunk: Buffer, byte: number, from: number): number {
  const at = chunk.indexOf(byte, from);
  return at < 0 ? chunk.length : at;
}

function hexDigit(byte: number): number {
  if (byte >= DIGIT_0 && byte <= DIGIT_9) return byte - DIGIT_0;
  const letter = byte | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : 0;
}

function pushUtf8(sink: ByteSink, point: number): void {
  if (point < 0x80) return sink.push(point);
  if (point < 0x800) sink.push(0xc0 | (point >> 6));
  else {
    if (point < 0x10000) sink.push(0xe0 | (point >> 12));
    else {
      sink.push(0xf0 | (point >> 18));
      sink.push(0x80 | ((point >> 12) & 0x3f));
    }
    sink.push(0x80 | ((point >> 6) & 0x3f));
  }
  sink.push(0x80 | (point & 0x3f));
}
