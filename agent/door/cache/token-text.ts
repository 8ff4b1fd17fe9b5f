import { BLOCK_BYTES } from '../../request/fingerprint.ts';

/** Tokens remembered; no vocabulary in use is larger. */
const MAX_TOKENS = 524_288;
/** Bytes of text by which a lost place is searched for: enough that a match is no coincidence. */
const NEEDLE_BYTES = 8;
const LONG_NEEDLE_BYTES = 16;
/**
 * Bytes of text that may be skipped at once: the markers that stand for a chat template in the canonical text, and more
 * for each token without a place.
 */
const SKIP_BYTES = 24;
const SKIP_BYTES_PER_TOKEN = 16;
/** After this many tokens without a place, the rest of the text is searched, not only the text near by. */
const LOST_TOKENS = 8;
const BACK_BYTES = 512;
/** A place is judged by at most this many tokens, and by at least this many of known text. */
const MAX_LOCATED = 64;
const MIN_LOCATED = 8;
const MIN_FOUND = 0.7;
/**
 * Size of the window around the expected place: bytes, plus a share of its offset; and places in it that are compared.
 */
const LOCATE_BYTES = 192;
const LOCATE_SHARE = 0.05;
const MAX_PLACES = 16;

/** The inverse of GPT-2's bytes_to_unicode, the printable characters with which byte-level tokenizers spell bytes. */
const BYTE_OF_CHAR: ReadonlyMap<string, number> = byteOfChar();

/** The text of an engine's tokens by id, learned from the answers of its tokenizer. */
export class Vocabulary {
  private readonly bytes = new Map<number, Buffer>();

  get size(): number {
    return this.bytes.size;
  }

  learn(id: number, spelling: string): void {
    if (this.bytes.size < MAX_TOKENS && !this.bytes.has(id)) this.bytes.set(id, tokenBytes(spelling));
  }

  /** Undefined: never seen. */
  get(id: number): Buffer | undefined {
    return this.bytes.get(id);
  }

  clear(): void {
    this.bytes.clear();
  }
}

/** The bytes of a token by its tokenizer's spelling: byte-level (`Ġthe`) or SentencePiece (`▁the`, `<0x0A>`). */
export function tokenBytes(spelling: string): Buffer {
  const hex = /^<0x([0-9A-Fa-f]{2})>$/.exec(spelling);
  if (hex) return Buffer.from([Number.parseInt(hex[1] as string, 16)]);
  if (spelling.includes('▁')) return Buffer.from(spelling.replaceAll('▁', ' '));
  const bytes: number[] = [];
  for (const char of spelling) {
    const byte = BYTE_OF_CHAR.get(char);
    if (byte === undefined) return Buffer.from(spelling);
    bytes.push(byte);
  }
  return Buffer.from(bytes);
}

/**
 * Follows an engine's tokens through the canonical text of a prompt, to find how many tokens lie before the end of each
 * byte block. It skips tokens of the chat template, which are not in that text, and the text's own markers, which are
 * not tokens. Tokens of unknown text are placed between their neighbours.
 */
export class Alignment {
  /** tokens that were found in the text */
  found = 0;
  /** those of them that followed directly on the one before */
  straight = 0;
  private readonly text: Buffer;
  /** how far the text was followed, and how many tokens that took from the start of the prompt */
  private byte: number;
  private token: number;
  private lost = 0;
  /** byte offsets in the text, each followed by the number of tokens before it */
  private readonly places: number[] = [];

  constructor(text: Buffer, byte = 0, token = 0) {
    this.text = text;
    this.byte = byte;
    this.token = token;
  }

  /** Tokens of the sequence so far: those before the start, and those that were fed. */
  get tokens(): number {
    return this.token + this.lost;
  }

  /**
   * Takes the text of the next tokens: those of `pieces` from `from` to before `end`, which are looked for with what
   * follows them. `reach` is called with each byte block that ends before the last token found, in order, and with the
   * tokens before its end.
   */
  feed(
    pieces: readonly (Buffer | undefined)[],
    reach: (block: number, tokens: number) => void,
    from = 0,
    end = pieces.length,
  ): void {
    for (let i = from; i < end; i++) {
      const piece = pieces[i];
      const at = piece && piece.length > 0 ? this.placeOf(pieces, i, piece) : -1;
      if (at < 0) {
        this.lost += 1;
        continue;
      }
      if (at === this.byte) this.straight += 1;
      this.advance(at, this.token + this.lost, reach);
      this.advance(at + (piece as Buffer).length, this.token + 1, reach);
      this.found += 1;
    }
  }

  /** Tokens before each byte of the text, and before its end; NaN where no token begins or ends. */
  tokensAt(): Float64Array {
    const at = new Float64Array(this.text.length + 1).fill(NaN);
    for (let i = 0; i < this.places.length; i += 2) at[this.places[i] as number] = this.places[i + 1] as number;
    return at;
  }

  private placeOf(pieces: readonly (Buffer | undefined)[], i: number, piece: Buffer): number {
    const { text, byte } = this;
    if (text.length - byte >= piece.length && text.compare(piece, 0, piece.length, byte, byte + piece.length) === 0)
      return byte;
    const isLost = this.lost >= LOST_TOKENS && this.lost % LOST_TOKENS === 0;
    const needle = needleAt(pieces, i, isLost ? LONG_NEEDLE_BYTES : NEEDLE_BYTES);
    if (!needle) return -1;
    if (isLost) return text.indexOf(needle, Math.max(0, byte - BACK_BYTES));
    const near = text.subarray(byte, byte + SKIP_BYTES + this.lost * SKIP_BYTES_PER_TOKEN + needle.length);
    const at = near.indexOf(needle);
    return at < 0 ? -1 : byte + at;
  }

  private advance(byte: number, token: number, reach: (block: number, tokens: number) => void): void {
    const bytes = byte - this.byte;
    this.places.push(byte, token);
    if (bytes > 0) {
      const perByte = (token - this.token) / bytes;
      for (let end = (Math.floor(this.byte / BLOCK_BYTES) + 1) * BLOCK_BYTES; end <= byte; end += BLOCK_BYTES) {
        reach(end / BLOCK_BYTES - 1, Math.floor(this.token + (end - this.byte) * perByte + 1e-9));
      }
    }
    this.byte = byte;
    this.token = token;
    this.lost = 0;
  }
}

/** Where tokens stand in a text, and how certain that is. */
export interface TokenPlace {
  /** index of the first token that was found, and its place in the text */
  piece: number;
  byte: number;
  /** of the tokens of known text from that one on: the share that follow one another in the text */
  found: number;
}

/**
 * Searches a text for tokens near a byte: `absent` if their known text is not there, `unknown` if too little of it is
 * known. `isStart`: the tokens begin the prompt, so their place is the start of the text.
 */
export function locate(
  pieces: readonly (Buffer | undefined)[],
  text: Buffer,
  nearByte: number,
  isStart: boolean,
): TokenPlace | 'absent' | 'unknown' {
  const known = pieces.slice(0, MAX_LOCATED).filter((piece) => piece !== undefined).length;
  if (known < MIN_LOCATED) return 'unknown';
  let best: TokenPlace | undefined;
  const look = (piece: number, byte: number): void => {
    const alignment = new Alignment(text, byte);
    const rest = pieces.slice(piece, MAX_LOCATED);
    alignment.feed(rest, () => undefined);
    const found = alignment.straight / Math.max(MIN_LOCATED, rest.filter((one) => one !== undefined).length);
    if (found > (best?.found ?? 0)) best = { piece, byte, found };
  };
  if (isStart) look(0, 0);
  else for (const { piece, byte } of occurrences(pieces, text, nearByte)) look(piece, byte);
  return best && best.found >= MIN_FOUND ? best : 'absent';
}

/** Places near a byte at which the first run of known tokens that is long enough is found. */
function occurrences(
  pieces: readonly (Buffer | undefined)[],
  text: Buffer,
  nearByte: number,
): { piece: number; byte: number }[] {
  const within = LOCATE_BYTES + LOCATE_SHARE * nearByte;
  const from = Math.max(0, Math.floor(nearByte - within));
  const window = text.subarray(from, nearByte + within);
  for (let piece = 0; piece < Math.min(MAX_LOCATED, pieces.length); piece++) {
    const needle = needleAt(pieces, piece, LONG_NEEDLE_BYTES);
    if (!needle) continue;
    const places: { piece: number; byte: number }[] = [];
    for (let at = window.indexOf(needle); at >= 0 && places.length < MAX_PLACES; at = window.indexOf(needle, at + 1))
      places.push({ piece, byte: from + at });
    if (places.length > 0) return places;
  }
  return [];
}

/** Text of the tokens from `i` on, at least `bytes` long; undefined where one of them is unknown before that. */
function needleAt(pieces: readonly (Buffer | undefined)[], i: number, bytes: number): Buffer | undefined {
  const parts: Buffer[] = [];
  let length = 0;
  for (let at = i; at < pieces.length && length < bytes; at++) {
    const piece = pieces[at];
    if (!piece) return undefined;
    parts.push(piece);
    length += piece.length;
  }
  return length >= bytes ? Buffer.concat(parts) : undefined;
}

function byteOfChar(): Map<string, number> {
  const isPrintable = (byte: number): boolean =>
    (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCodePoint(isPrintable(byte) ? byte : next++), byte);
  return map;
}
