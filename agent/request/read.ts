import { createHash } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { setTopLevel } from './json-splice.ts';

/** A client's request as it came in, with what routing reads out of it. */
export interface ClientRequest {
  method: string;
  /** path with query */
  path: string;
  headers: IncomingHttpHeaders;
  /** what goes to the engine: as received, but for `stream_options` where `usageAdded` */
  body: readonly Buffer[];
  model: string | undefined;
  stream: boolean;
  /** the answer carries a usage chunk that the client did not ask for; it is stripped */
  usageAdded: boolean;
  /** canonical prompt: text of every part in template order, or token ids as little-endian uint32 */
  prompt: Buffer;
  promptIsTokens: boolean;
  maxTokens: number;
  /** sequences that the call asks for: n × prompts in the batch */
  sequences: number;
  priority: number;
  cacheSalt: string;
  /** who asks, as far as the request tells: a short hash of the `user` field or of the credential; '' if neither is there */
  client: string;
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
}

/** Routes whose streams understand `stream_options.include_usage`. */
const USAGE_ROUTES = /^\/v1\/(chat\/)?completions(\?|$)/;
/** Routes whose prompts no engine computes: they cost no prefill and fill no cache. */
const COMPUTES_NOTHING = /^\/((de)?tokenize|v1\/messages\/count_tokens|v1\/(chat\/)?completions\/render)(\?|$)/;

/** The canonical prompt, and how many prompts the call holds. */
interface Prompt {
  prompt: Buffer;
  promptIsTokens: boolean;
  batch: number;
}

const NO_PROMPT: Prompt = { prompt: Buffer.alloc(0), promptIsTokens: false, batch: 1 };
/** A part of a message that is not text and longer than this (an image, audio) stands for itself by its hash. */
const MAX_PART_CHARS = 256;
/** Larger numbers are nonsense; bounded, they cannot upset features that a net learns from. */
const MAX_NUMBER = 1e9;

/**
 * Reads a request. What cannot be read (no JSON, no object, nested too deeply, fields of a wrong type) counts as absent and goes to an engine as it is, whose own error the client
 * then gets.
 */
export function readRequest(method: string, path: string, headers: IncomingHttpHeaders, body: Buffer): ClientRequest {
  const json = isJson(headers, body) ? parseBody(body) : {};
  const stream = json['stream'] === true;
  const prompt = COMPUTES_NOTHING.test(path) ? NO_PROMPT : readPrompt(json);
  const request: ClientRequest = {
    method,
    path,
    headers,
    body: body.length > 0 ? [body] : [],
    model: typeof json['model'] === 'string' ? json['model'] : undefined,
    stream,
    usageAdded: false,
    ...prompt,
    maxTokens: positive(json['max_completion_tokens']) || positive(json['max_tokens']) || positive(json['max_output_tokens']),
    sequences: Math.min(MAX_NUMBER, (positive(json['n']) || 1) * prompt.batch),
    priority: Number(headers['x-vllm-priority'] ?? json['priority']) || 0,
    cacheSalt: typeof json['cache_salt'] === 'string' ? json['cache_salt'] : '',
    client: clientOf(json['user'], headers),
    sloTtftMs: positive(Number(headers['x-slo-ttft-ms'])) || undefined,
    sloTpotMs: positive(Number(headers['x-slo-tpot-ms'])) || undefined,
  };
  if (stream && USAGE_ROUTES.test(path)) addUsage(request, body, json['stream_options']);
  return request;
}

/** Hashed, since credentials are not to be kept. */
function clientOf(user: unknown, headers: IncomingHttpHeaders): string {
  const key = typeof user === 'string' && user !== '' ? user : (headers.authorization ?? headers['x-api-key']);
  return typeof key === 'string' && key !== '' ? createHash('sha1').update(key).digest('base64url').slice(0, 12) : '';
}

/** Asks the engine for the usage chunk: it corrects the cache view and tells token counts. */
function addUsage(request: ClientRequest, body: Buffer, options: unknown): void {
  const given = isObject(options) ? options : {};
  if (given['include_usage'] === true) return;
  // A client that sends a malformed stream_options gets the engine's own error for it.
  if (options !== undefined && options !== null && !isObject(options)) return;
  // Alone, continuous_usage_stats does nothing in vLLM; beside the include_usage that we add, it would.
  const continuous = 'continuous_usage_stats' in given ? { continuous_usage_stats: false } : {};
  request.body = [setTopLevel(body, 'stream_options', JSON.stringify({ ...given, ...continuous, include_usage: true }))];
  request.usageAdded = true;
}

function isJson(headers: IncomingHttpHeaders, body: Buffer): boolean {
  if (body.length === 0) return false;
  const type = headers['content-type'] ?? 'application/json';
  return !type.startsWith('multipart/') && !type.startsWith('audio/');
}

function parseBody(body: Buffer): Record<string, unknown> {
  try {
    const json: unknown = JSON.parse(body.toString('utf8'));
    return isObject(json) ? json : {};
  } catch {
    return {};
  }
}

function readPrompt(json: Record<string, unknown>): Prompt {
  try {
    return canonicalPrompt(json);
  } catch (error) {
    // Nested so deeply that the stack does not suffice.
    if (error instanceof RangeError) return NO_PROMPT;
    throw error;
  }
}

/**
 * The prompt in one form, such that a later turn of a conversation begins with the bytes of the earlier one: tools, then each message as role and
 * text. Only equality of beginnings matters, so it need not be the engine's chat template.
 */
function canonicalPrompt(json: Record<string, unknown>): Prompt {
  // A string `input` of the Responses API is the same as one message of the user; its next turn says so.
  const input = typeof json['input'] === 'string' ? [{ role: 'user', content: json['input'] }] : json['input'];
  const raw = json['prompt'] ?? input;
  if (typeof raw === 'string') return { prompt: Buffer.from(raw), promptIsTokens: false, batch: 1 };
  if (isTokenList(raw)) return { prompt: tokenBytes(raw), promptIsTokens: true, batch: 1 };
  if (Array.isArray(raw) && raw.length > 0 && !isObject(raw[0])) {
    const first: unknown = raw[0];
    if (isTokenList(first)) return { prompt: tokenBytes(first), promptIsTokens: true, batch: raw.length };
    return { prompt: Buffer.from(typeof first === 'string' ? first : ''), promptIsTokens: false, batch: raw.length };
  }
  const messages = Array.isArray(json['messages']) ? json['messages'] : Array.isArray(raw) ? raw : undefined;
  if (!messages) return NO_PROMPT;
  const parts: string[] = [];
  if (json['tools'] !== undefined) parts.push(JSON.stringify(json['tools']));
  for (const key of ['system', 'instructions']) if (json[key] !== undefined) parts.push('\u0001system\u0002', contentText(json[key]));
  for (const message of messages) {
    if (!isObject(message)) continue;
    parts.push('\u0001', String(message['role']), '\u0002', contentText(message['content']));
    if (message['tool_calls'] !== undefined) parts.push(JSON.stringify(message['tool_calls']));
  }
  return { prompt: Buffer.from(parts.join('')), promptIsTokens: false, batch: 1 };
}

function contentText(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return content === undefined || content === null ? '' : JSON.stringify(content);
  return content.map((part) => (isObject(part) && typeof part['text'] === 'string' ? part['text'] : otherPart(part))).join('');
}

/** Base64 of an image says nothing of its tokens, so a long part must not count as text. */
function otherPart(part: unknown): string {
  const json = JSON.stringify(part);
  return json.length <= MAX_PART_CHARS ? json : createHash('sha256').update(json).digest('hex');
}

function isTokenList(value: unknown): value is number[] {
  return Array.isArray(value) && value.length > 0 && typeof value[0] === 'number';
}

function tokenBytes(tokens: readonly number[]): Buffer {
  return Buffer.from(Uint32Array.from(tokens).buffer);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function positive(value: unknown): number {
  return typeof value === 'number' && Number.isFinite(value) && value > 0 ? Math.min(MAX_NUMBER, value) : 0;
}
