const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const CHAT = /^\/v1\/chat\/completions(\?|$)/;
const COMPLETIONS = /^\/v1\/completions(\?|$)/;
/** Longer answers are not kept: their blocks get no hashes. */
const MAX_BYTES = 512 * 1024;
/** Parts of an answer that do not come back as they were sent: their place in the next prompt is not known. */
const NOT_REPEATED = [
  Buffer.from('"tool_calls":[{'),
  Buffer.from('"reasoning":"'),
  Buffer.from('"reasoning_content":"'),
];

/**
 * Collects the text of an answer in the form that it has in the next turn's canonical prompt
 * (agent/request/prompt-reader.ts): the engine keeps the answer's blocks cached, and a conversation comes back with
 * them.
 */
export class AnswerText {
  private readonly key: Buffer;
  private readonly before: string;
  private parts: string[] | undefined = [];
  private bytes = 0;

  private constructor(key: string, before: string) {
    this.key = Buffer.from(key);
    this.before = before;
  }

  /** Undefined: the answers of this route do not come back as text, or the call asks for several. */
  static of(path: string, sequences: number): AnswerText | undefined {
    if (sequences !== 1) return undefined;
    if (CHAT.test(path)) return new AnswerText('"content":"', '\u0001assistant\u0002');
    return COMPLETIONS.test(path) ? new AnswerText('"text":"', '') : undefined;
  }

  /** A `data:` event of a stream, or the body of an answer that is not one. */
  push(event: Buffer): void {
    if (!this.parts) return;
    if (NOT_REPEATED.some((mark) => event.includes(mark))) {
      this.parts = undefined;
      return;
    }
    const at = event.indexOf(this.key);
    if (at < 0) return;
    const start = at + this.key.length;
    const end = endOfString(event, start - 1) - 1;
    this.bytes += end - start;
    if (this.bytes > MAX_BYTES) this.parts = undefined;
    else this.parts.push(event.toString('utf8', start, end));
  }

  /** The whole text; undefined where it is not known, or would not come back. */
  text(): Buffer | undefined {
    if (!this.parts) return undefined;
    try {
      return Buffer.from(this.before + (JSON.parse(`"${this.parts.join('')}"`) as string));
    } catch {
      return undefined;
    }
  }
}

/** Index after the closing quote of the string that opens at `at`. */
function endOfString(body: Buffer, at: number): number {
  let next = at + 1;
  while (next < body.length && body[next] !== QUOTE) next += body[next] === BACKSLASH ? 2 : 1;
  return next + 1;
}
