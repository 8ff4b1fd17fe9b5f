const SEPARATOR = Buffer.from('\n\n');
/** Beginnings of error events: of the OpenAI streams, and of the Messages API. */
const ERROR_STARTS = [Buffer.from('data: {"error"'), Buffer.from('event: error\n')];
const DONE = Buffer.from('data: [DONE]');
const USAGE = Buffer.from('"usage":{');
const EMPTY_CHOICES = Buffer.from('"choices":[]');
const ROLE_CHUNK = Buffer.from('"role":"assistant","content":""');

/** What a server-sent event of vLLM's stream is; docs: vLLM's serving_chat.py and serving_completion.py. */
export type SseKind = 'token' | 'role' | 'usage' | 'error' | 'done';

/** An event larger than this cannot be vLLM's; the reader stops cutting and passes bytes through. */
const MAX_EVENT_BYTES = 16 * 1024 * 1024;

/**
 * Cuts a byte stream into server-sent events (`…\n\n`). vLLM writes whole events, so nearly always an event is a view of its chunk and nothing
 * is copied; only what a packet boundary splits is held until the rest comes.
 */
export class SseReader {
  private held: Buffer | undefined;

  /** Calls `onEvent` for each event that this chunk completes, its separator included. */
  push(chunk: Buffer, onEvent: (event: Buffer) => void): void {
    const data = this.held ? Buffer.concat([this.held, chunk]) : chunk;
    this.held = undefined;
    let start = 0;
    for (;;) {
      const end = data.indexOf(SEPARATOR, start);
      if (end < 0) break;
      onEvent(data.subarray(start, end + SEPARATOR.length));
      start = end + SEPARATOR.length;
    }
    if (start === data.length) return;
    const rest = data.subarray(start);
    if (rest.length > MAX_EVENT_BYTES) onEvent(rest);
    else this.held = rest;
  }

  /** What came after the last separator. */
  flush(): Buffer | undefined {
    const rest = this.held;
    this.held = undefined;
    return rest;
  }
}

export function classifyEvent(event: Buffer): SseKind {
  for (const start of ERROR_STARTS) if (event.subarray(0, start.length).equals(start)) return 'error';
  if (event.length < 20 && event.subarray(0, DONE.length).equals(DONE)) return 'done';
  if (event.includes(EMPTY_CHOICES) && event.includes(USAGE)) return 'usage';
  if (event.includes(ROLE_CHUNK)) return 'role';
  return 'token';
}

/** Token counts of an answer, as the engine reports them; undefined where it does not. */
export interface Usage {
  promptTokens: number | undefined;
  outputTokens: number | undefined;
  cachedTokens: number | undefined;
  /** vLLM's own time from its queue to the first token, if it runs with --enable-per-request-metrics */
  engineTtftMs: number | undefined;
}

/** Reads usage from a JSON text: a whole answer, or a `data:` event. Undefined if there is none in it. */
export function readUsage(text: string): Usage | undefined {
  let body: unknown;
  try {
    body = JSON.parse(text.startsWith('data:') ? text.slice(5) : text);
  } catch {
    return undefined;
  }
  const usage = field(body, 'usage');
  if (typeof usage !== 'object' || usage === null) return undefined;
  const metrics = field(body, 'metrics');
  return {
    promptTokens: count(field(usage, 'prompt_tokens') ?? field(usage, 'input_tokens')),
    outputTokens: count(field(usage, 'completion_tokens') ?? field(usage, 'output_tokens')),
    cachedTokens: count(field(field(usage, 'prompt_tokens_details'), 'cached_tokens')),
    engineTtftMs: sum(amount(field(metrics, 'queue_time_ms')), amount(field(metrics, 'time_to_first_token_ms'))),
  };
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
