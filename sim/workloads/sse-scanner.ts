import { z } from 'zod';

/** Token counts that the server reports at the end of a stream. */
export interface StreamUsage {
  promptTokens: number;
  completionTokens: number;
  /** Undefined where the server does not say (no --enable-prompt-tokens-details). */
  cachedTokens: number | undefined;
}

const usageEvent = z.object({
  usage: z.object({
    prompt_tokens: z.number(),
    completion_tokens: z.number().nullish(),
    prompt_tokens_details: z.object({ cached_tokens: z.number().nullish() }).nullish(),
  }),
});

const LINE_FEED = 10;
const DATA = Buffer.from('data: ');
const DONE = Buffer.from('data: [DONE]');
const ERROR = Buffer.from('data: {"error"');
const NO_CHOICES = Buffer.from('"choices":[]');
const MAX_LINE_BYTES = 4 * 1024 * 1024;

/**
 * Reads an OpenAI event stream at the price of a few byte searches per event: only the usage event is parsed as JSON.
 * Times are whatever clock the caller reads.
 */
export class SseScanner {
  /** Arrival of the first event and of the last one that carried choices. */
  firstMs: number | undefined;
  lastMs: number | undefined;
  usage: StreamUsage | undefined;
  /** An error event inside the stream, as text. */
  error: string | undefined;
  done = false;
  private rest: Buffer | undefined;

  push(chunk: Buffer, nowMs: number): void {
    const bytes = this.rest ? Buffer.concat([this.rest, chunk]) : chunk;
    let start = 0;
    for (let end = bytes.indexOf(LINE_FEED, start); end >= 0; end = bytes.indexOf(LINE_FEED, start)) {
      if (end > start) this.line(bytes.subarray(start, end), nowMs);
      start = end + 1;
    }
    const rest = bytes.subarray(start);
    if (rest.length > MAX_LINE_BYTES) this.error = `a line of more than ${MAX_LINE_BYTES} bytes`;
    this.rest = rest.length === 0 || rest.length > MAX_LINE_BYTES ? undefined : Buffer.from(rest);
  }

  private line(line: Buffer, nowMs: number): void {
    if (!startsWith(line, DATA)) return;
    if (startsWith(line, DONE)) this.done = true;
    else if (startsWith(line, ERROR)) this.error = line.toString('utf8', DATA.length, DATA.length + 500);
    else if (line.includes(NO_CHOICES)) this.readUsage(line.toString('utf8', DATA.length));
    else {
      this.firstMs ??= nowMs;
      this.lastMs = nowMs;
    }
  }

  private readUsage(text: string): void {
    try {
      const { usage } = usageEvent.parse(JSON.parse(text));
      this.usage = {
        promptTokens: usage.prompt_tokens,
        completionTokens: usage.completion_tokens ?? 0,
        cachedTokens: usage.prompt_tokens_details?.cached_tokens ?? undefined,
      };
    } catch {
      this.error = `an unreadable usage event: ${text.slice(0, 200)}`;
    }
  }
}

function startsWith(line: Buffer, prefix: Buffer): boolean {
  return line.length >= prefix.length && line.compare(prefix, 0, prefix.length, 0, prefix.length) === 0;
}
