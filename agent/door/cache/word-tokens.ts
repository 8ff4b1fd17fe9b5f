/** Words remembered. */
const MAX_WORDS = 65_536;
const MAX_WORD_BYTES = 32;
/** Bytes of text that are split into words; the rest is estimated by their mean. */
const MAX_TEXT_BYTES = 32_768;
const RATE = 0.05;
/** The characters around a message's role in the canonical text (agent/request/prompt-reader.ts). */
const [OPEN, CLOSE] = ['\u0001', '\u0002'];
/** A message's marker, or a word with the space before it, or white space: the first split that tokenizers make. */
const WORD = new RegExp(`${OPEN}[^${CLOSE}]*${CLOSE}|[^\\S\\r\\n]?[^\\s${OPEN}]+|\\s+`, 'g');

/** Estimates the tokens of new text by its words, whose counts it learns from prompts with exact tokens. */
export class WordTokens {
  private readonly counts = new Map<string, number>();
  /** mean over the words learned, used for words that are not known */
  private tokensPerByte = 0;

  get isEmpty(): boolean {
    return this.counts.size === 0;
  }

  /** `tokensAt`: tokens before each byte of `text`; NaN where that is not known. */
  learn(text: Buffer, tokensAt: Float64Array): void {
    for (const { word, start, end } of words(text, 0, Math.min(text.length, MAX_TEXT_BYTES))) {
      const tokens = (tokensAt[end] as number) - (tokensAt[start] as number);
      if (!(tokens >= 0) || word.length > MAX_WORD_BYTES) continue;
      if (this.counts.has(word)) continue;
      const perByte = tokens / (end - start);
      this.tokensPerByte += (this.tokensPerByte === 0 ? 1 : RATE) * (perByte - this.tokensPerByte);
      if (this.counts.size < MAX_WORDS) this.counts.set(word, tokens);
    }
  }

  /**
   * Estimated tokens from byte `from` on up to the end of each block of `blockBytes` bytes; the last entry is the end
   * of the text. `fallback`: tokens per byte where nothing is known.
   */
  estimate(text: Buffer, from: number, blockBytes: number, fallback: number): Float64Array {
    const blocks = Math.floor(text.length / blockBytes) - Math.floor(from / blockBytes);
    const ends = new Float64Array(blocks + 1);
    const until = this.isEmpty ? from : Math.min(text.length, from + MAX_TEXT_BYTES);
    let tokens = 0;
    let block = 0;
    let at = from;
    const advance = (end: number, perByte: number): void => {
      for (let next = from + (block + 1) * blockBytes; block < blocks && next <= end; next += blockBytes, block++)
        ends[block] = tokens + (next - at) * perByte;
      tokens += (end - at) * perByte;
      at = end;
    };
    for (const { word, start, end } of words(text, from, until)) {
      const known = this.counts.get(word);
      advance(end, known === undefined ? this.tokensPerByte || fallback : known / (end - start));
    }
    advance(text.length, at > from ? tokens / (at - from) : fallback);
    ends[blocks] = tokens;
    return ends;
  }
}

function* words(text: Buffer, from: number, until: number): Generator<{ word: string; start: number; end: number }> {
  // Latin-1 has one character a byte, so offsets are those of the buffer.
  const chars = text.toString('latin1', from, until);
  WORD.lastIndex = 0;
  for (let match = WORD.exec(chars); match; match = WORD.exec(chars)) {
    const [word] = match;
    // A word that the limit cuts off is another word.
    const end = from + match.index + word.length;
    if (end === until && until < text.length) return;
    yield { word, start: from + match.index, end };
  }
}
