import { BLOCK_BYTES } from '../../request/fingerprint.ts';

/** Tokens remembered; no vocabulary in use is larger. */
const MAX_TOKENS = 524_288;
/** A resumption is looked for with this much text, so that it is not found by chance. */
const NEEDLE_BYTES = 8;
const LONG_NEEDLE_BYTES = 16;
/**
 * Text that may be skipped at once: the markers that stand for a chat template in the canonical text, and more the
 * longer nothing was found.
 */
const SKIP_BYTES = 24;
const SKIP_BYTES_PER_TOKEN = 16;
/** Tokens without a place after which it is looked for anywhere, not only near. */
const LOST_TOKENS = 8;
const BACK_BYTES = 512;
/** Tokens by which a place is judged, at most, and those of known text that it takes at least. */
const MAX_LOCATED = 64;
const MIN_LOCATED = 8;
const MIN_FOUND = 0.7;
/**
 * Where they are looked for around the place at which they are expected, and how many places that look alike are
 * compared.
 */
const LOCATE_BYTES = 192;
const LOCATE_SHARE = 0.05;
const MAX_PLACES = 16;

/**
 * GPT-2's map of bytes to printable characters (its bytes_to_unicode), by which byte-level tokenizers spell their
 * tokens; here from character to byte.
 */
const BYTE_OF_CHAR: ReadonlyMap<string, number> = byteOfChar();

/** Text of an engine's tokens, learned from its own tokenizer's answers: id → bytes. */
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

/**
 * Bytes that a token stands for, from the spelling that a tokenizer gives it: byte-level (`Ġthe`) or SentencePiece
 * (`▁the`, `<0x0A>`).
 */
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
 * byte block. Tokens of the chat template are not in that text, its own markers are not among the tokens; both are
 * passed over. Tokens of unknown text count, at a place between their neighbours'.
 */
export class Alignment {
  /** tokens that had their place in the text */
  found = 0;
  /** of those: the ones that followed right on the one before */
  straight = 0;
  private readonly text: Buffer;
  /** the text is followed up to here, by so many tokens from the start of the prompt */
  private byte: number;
  private token: number;
  private lost = 0;
  /** places in the text and tokens before them, in turn */
  private readonly places: number[] = [];

  constructor(text: Buffer, byte = 0, token = 0) {
    this.text = text;
    this.byte = byte;
    this.token = token;
  }

  /** Tokens of the sequence that were fed or were before the start. */
  get tokens(): number {
    return this.token + this.lost;
  }

  /**
   * The next tokens, by their text. `reach` is called for each byte block that ends before what was found, in order,
   * with the tokens before its end.
   */
  feed(pieces: readonly (Buffer | undefined)[], reach: (block: number, tokens: number) => void): void {
    for (let i = 0; i < pieces.length; i++) {
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
    if (text.length - byte >= piece.length && text.compare(piece, 0, piece.length, byte, byte + piece.length) === 0) return byte;
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

/** Where tokens stand in a text, and how sure that is. */
export interface TokenPlace {
  /** the first of them that was found, and its place */
  piece: number;
  byte: number;
  /** share of the tokens of known text, from that one on, that follow on one another in the text */
  found: number;
}

/**
 * Looks for tokens in a text near a byte: `absent` if what is known of them is not there, `unknown` if too little is
 * known. `isStart`: they begin the prompt, so their place is the text's start.
 */
export function locate(pieces: readonly (Buffer | undefined)[], text: Buffer, nearByte: number, isStart: boolean): TokenPlace | 'absent' | 'unknown' {
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

/** Places near a byte at which the first tokens that make up a needle are found. */
function occurrences(pieces: readonly (Buffer | undefined)[], text: Buffer, nearByte: number): { piece: number; byte: number }[] {
  const within = LOCATE_BYTES + LOCATE_SHARE * nearByte;
  const from = Math.max(0, Math.floor(nearByte - within));
  const window = text.subarray(from, nearByte + within);
  for (let piece = 0; piece < Math.min(MAX_LOCATED, pieces.length); piece++) {
    const needle = needleAt(pieces, piece, LONG_NEEDLE_BYTES);
    if (!needle) continue;
    const places: { piece: number; byte: number }[] = [];
    for (let at = window.indexOf(needle); at >= 0 && places.length < MAX_PLACES; at = window.indexOf(needle, at + 1)) places.push({ piece, byte: from + at });
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
  const isPrintable = (byte: number): boolean => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const map = new Map<string, number>();
  let next = 256;
  for (let byte = 0; byte < 256; byte++) map.set(String.fromCodePoint(isPrintable(byte) ? byte : next++), byte);
  return map;
}
