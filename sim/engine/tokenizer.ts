/** Size of the id space: that of Llama 3. */
export const VOCAB_SIZE = 128256;
/** Ids below this stand for themselves (special tokens); text hashes to the ids above. */
const FIRST_TEXT_ID = 1024;
const MAX_PIECE_BYTES = 5;

/** Text of ids seen so far, for detokenising; bounded by the id space. */
const pieceOfId: (string | undefined)[] = [];

/**
 * Ids of `text`: pieces of at most 5 bytes (6 with the space before a word) hashed to ids, so about 4 bytes a token in
 * English, as a real tokenizer's. Left to right without look-back, so a text that extends another keeps all its tokens
 * except possibly the last one, and one piece always has the same id in every process.
 */
export function tokenize(text: string): number[] {
  const ids: number[] = [];
  for (let at = 0; at < text.length;) {
    const end = pieceEnd(text, at);
    const piece = text.slice(at, end);
    ids.push(idOf(piece));
    at = end;
  }
  return ids;
}

/** Id of one piece. */
export function idOf(piece: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < piece.length; i++) hash = Math.imul(hash ^ piece.charCodeAt(i), 0x01000193);
  hash ^= hash >>> 15;
  const id = FIRST_TEXT_ID + ((hash >>> 0) % (VOCAB_SIZE - FIRST_TEXT_ID));
  pieceOfId[id] ??= piece;
  return id;
}

/** Text of ids: that of the pieces this process has seen, `<|id|>` for others. */
export function detokenize(ids: readonly number[]): string {
  return ids.map((id) => pieceOfId[id] ?? `<|${id}|>`).join('');
}

function pieceEnd(text: string, start: number): number {
  let at = start;
  let code = text.charCodeAt(at);
  if (code === 32) {
    at++;
    if (at >= text.length || !isWord((code = text.charCodeAt(at)))) return spacesEnd(text, start);
  }
  if (isWord(code)) {
    for (let bytes = 0; at < text.length; at++) {
      code = text.charCodeAt(at);
      bytes += code < 128 ? 1 : 2;
      if (!isWord(code) || bytes > MAX_PIECE_BYTES) break;
    }
    return at;
  }
  if (code < 128) return runEnd(text, at, code);
  return code >= 0xd800 && code < 0xdc00 && at + 1 < text.length ? at + 2 : at + 1;
}

/** Several spaces: up to four, without the last one if a word follows, which takes it along. */
function spacesEnd(text: string, start: number): number {
  const end = runEnd(text, start, 32);
  const isBeforeWord = end < text.length && text.charCodeAt(end - 1) === 32 && isWord(text.charCodeAt(end));
  return isBeforeWord && end - start > 1 ? end - 1 : end;
}

/** A run of one and the same punctuation or white space character. */
function runEnd(text: string, start: number, code: number): number {
  let at = start + 1;
  while (at < text.length && at - start < MAX_PIECE_BYTES && text.charCodeAt(at) === code) at++;
  return at;
}

/** ASCII letters and digits, and the two-byte letters of other alphabets; what is beyond is one token a character. */
function isWord(code: number): boolean {
  return (
    (code >= 97 && code <= 122) ||
    (code >= 65 && code <= 90) ||
    (code >= 48 && code <= 57) ||
    (code >= 0xc0 && code < 0x800)
  );
}
