import { z } from 'zod';
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
const MAX_BODY_BYTES = 512 * 1024;
const MAX_ANSWER_BYTES = 16 * 1024 * 1024;
/** Failures in a row after which the engine counts as having no such route. */
const MAX_FAILURES = 5;
/**
 * Fields of a request that change the tokens of its prompt, beside the prompt itself
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
const answerSchema = z.object({ tokens: z.array(z.int().nonnegative()), token_strs: z.array(z.string()) });

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

  constructor(upstream: Upstream, clock: Clock, apiKey: string | undefined) {
    this.upstream = upstream;
    this.clock = clock;
    this.apiKey = apiKey;
  }

  /** True if `ask` would send a request now. */
  get isReady(): boolean {
    return !this.busy && this.failures < MAX_FAILURES && this.clock.nowMs() >= this.nextMs;
  }

  /** The engine is another one: it may have the route. */
  reset(): void {
    this.failures = 0;
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
      return tokens;
    } catch (error) {
      this.failed(errorMessage(error));
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
      if (answer.status !== 200) throw new Error(`POST /tokenize answered ${answer.status}`);
      const { tokens, token_strs: spellings } = answerSchema.parse(JSON.parse(answer.body.toString('utf8')));
      if (spellings.length !== tokens.length)
        throw new Error(`POST /tokenize answered ${tokens.length} tokens and ${spellings.length} spellings`);
      return { ids: tokens, spellings };
    } finally {
      timer.cancel();
    }
  }

  private failed(why: string): void {
    this.failures += 1;
    if (this.failures === MAX_FAILURES) this.problem = `token counts stay estimates: ${why}`;
  }
}

function bytesOf(body: readonly Buffer[]): number {
  return body.reduce((sum, piece) => sum + piece.length, 0);
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
