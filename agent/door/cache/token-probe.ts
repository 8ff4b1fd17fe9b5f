import type { Clock } from '../../../shared/env.ts';
import { errorMessage } from '../../../shared/errors.ts';
import type { Upstream } from '../../wire/upstream.ts';

/** The tokens of a prompt by its engine's tokenizer. */
export interface TokenizedPrompt {
  ids: readonly number[];
  spellings: readonly string[];
}

/** A client's request as it went to the engine. */
export interface ProbeSource {
  path: string;
  headers: Record<string, string | string[]>;
  body: readonly Buffer[];
}

/** Time between two requests: the engine's tokenizer runs on the thread that also streams its answers. */
const MIN_GAP_MS = 500;
const TIMEOUT_MS = 5000;
/** Larger prompts are not asked for: question and answer are read in one piece, on the loop that moves every stream. */
const MAX_BODY_BYTES = 256 * 1024;
const MAX_ANSWER_BYTES = 2 * 1024 * 1024;
/** Statuses by which a server says that it has no such route, and how many of them in a row are believed. */
const NO_ROUTE: ReadonlySet<number> = new Set([404, 405, 501]);
const MAX_NO_ROUTE = 5;
/** Pause after a failure; it doubles with each further one. */
const FIRST_PAUSE_MS = 1000;
const MAX_PAUSE_MS = 300_000;
/** Failures in a row from which on they are told. */
const TOLD_FAILURES = 5;
/** Tokens that are looked at before the event loop gets its turn. */
const TOKENS_PER_TURN = 4096;
/**
 * Fields of a request that decide what its prompt's tokens are, beside the prompt itself
 * (vllm/entrypoints/serve/tokenize/protocol.py).
 */
const FIELDS = [
  'model',
  'messages',
  'tools',
  'chat_template',
  'chat_template_kwargs',
  'add_generation_prompt',
  'continue_final_message',
  'add_special_tokens',
  'mm_processor_kwargs',
  'media_io_kwargs',
] as const;

/**
 * Asks an engine now and then for the exact tokens of a prompt that it has already answered, off the request path: one
 * request at a time, with pauses.
 */
export class TokenProbe {
  /** why there are no exact counts; empty: there are */
  problem = '';
  private readonly upstream: Upstream;
  private readonly clock: Clock;
  private readonly apiKey: string | undefined;
  private busy = false;
  private nextMs = 0;
  private failures = 0;
  private withoutRoute = 0;

  constructor(upstream: Upstream, clock: Clock, apiKey: string | undefined) {
    this.upstream = upstream;
    this.clock = clock;
    this.apiKey = apiKey;
  }

  /** True if `ask` would send a request now. */
  get isReady(): boolean {
    return !this.busy && this.withoutRoute < MAX_NO_ROUTE && this.clock.nowMs() >= this.nextMs;
  }

  /** The engine is another one: it may have the route. */
  reset(): void {
    this.failures = 0;
    this.withoutRoute = 0;
    this.nextMs = 0;
    this.problem = '';
  }

  /** The engine's answer; undefined: it was not asked, or has none. */
  async ask(source: ProbeSource): Promise<TokenizedPrompt | undefined> {
    if (!this.isReady || bytesOf(source.body) > MAX_BODY_BYTES) return undefined;
    const question = questionOf(source);
    if (!question) return undefined;
    this.busy = true;
    this.nextMs = this.clock.nowMs() + MIN_GAP_MS;
    try {
      const tokens = await this.question(source, question);
      this.failures = 0;
      this.withoutRoute = 0;
      this.problem = '';
      return tokens;
    } catch (error) {
      this.failed(errorMessage(error), error instanceof NoRoute);
      return undefined;
    } finally {
      this.busy = false;
    }
  }

  private async question(source: ProbeSource, question: Buffer): Promise<TokenizedPrompt> {
    const stop = new AbortController();
    const timer = this.clock.after(TIMEOUT_MS, () => stop.abort());
    try {
      const authorization = this.apiKey ? `Bearer ${this.apiKey}` : source.headers['authorization'];
      const headers = { 'content-type': 'application/json', ...(authorization === undefined ? {} : { authorization }) };
      const answer = await this.upstream.ask(
        { method: 'POST', path: '/tokenize', headers, body: [question] },
        stop.signal,
        MAX_ANSWER_BYTES,
      );
      if (NO_ROUTE.has(answer.status)) throw new NoRoute(`POST /tokenize answered ${answer.status}`);
      if (answer.status !== 200) throw new Error(`POST /tokenize answered ${answer.status}`);
      return await readAnswer(answer.body);
    } finally {
      timer.cancel();
    }
  }

  private failed(why: string, hasNoRoute: boolean): void {
    this.failures += 1;
    this.withoutRoute = hasNoRoute ? this.withoutRoute + 1 : 0;
    this.nextMs = this.clock.nowMs() + Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (this.failures - 1));
    if (this.failures >= TOLD_FAILURES) this.problem = `token counts stay estimates: ${why}`;
  }
}

function bytesOf(body: readonly Buffer[]): number {
  return body.reduce((sum, piece) => sum + piece.length, 0);
}

class NoRoute extends Error {}

/** Tokens and their spellings, checked in turns of the event loop. Errors say in a few words what is wrong. */
async function readAnswer(body: Buffer): Promise<TokenizedPrompt> {
  let json: unknown;
  try {
    json = JSON.parse(body.toString('utf8'));
  } catch {
    throw new Error('POST /tokenize answered what is no JSON');
  }
  const { tokens: ids, token_strs: spellings } = (json ?? {}) as { tokens?: unknown; token_strs?: unknown };
  if (!Array.isArray(ids)) throw new Error('POST /tokenize answered no tokens');
  if (!Array.isArray(spellings)) throw new Error('POST /tokenize answered no texts of tokens (token_strs)');
  if (spellings.length !== ids.length)
    throw new Error(`POST /tokenize answered ${ids.length} tokens and ${spellings.length} spellings`);
  for (let i = 0; i < ids.length; i++) {
    if (i % TOKENS_PER_TURN === 0) await new Promise((resolve) => setImmediate(resolve));
    if (!Number.isSafeInteger(ids[i]) || ids[i] < 0 || typeof spellings[i] !== 'string')
      throw new Error('POST /tokenize answered tokens that are none');
  }
  return { ids: ids as number[], spellings: spellings as string[] };
}

/**
 * The body that asks for a request's tokens; undefined where the request is not readable JSON with one prompt of text.
 */
function questionOf({ path, body }: ProbeSource): Buffer | undefined {
  const isChat = /^\/v1\/chat\/completions(\?|$)/.test(path);
  if (!isChat && !/^\/v1\/completions(\?|$)/.test(path)) return undefined;
  let json: Record<string, unknown>;
  try {
    json = JSON.parse(Buffer.concat(body).toString('utf8')) as Record<string, unknown>;
  } catch {
    // Engines also accept bodies that are not JSON (`NaN`).
    return undefined;
  }
  const question: Record<string, unknown> = { return_token_strs: true };
  for (const field of FIELDS) if (json[field] !== undefined) question[field] = json[field];
  if (isChat ? !Array.isArray(json['messages']) : typeof json['prompt'] !== 'string') return undefined;
  if (!isChat) question['prompt'] = json['prompt'];
  return Buffer.from(JSON.stringify(question));
}
