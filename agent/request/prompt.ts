import { BLOCK_BYTES, fingerprint, type Fingerprint } from './fingerprint.ts';
import { type ClientRequest, COMPUTES_NOTHING } from './read.ts';
import type { TokenEstimate } from './token-estimate.ts';

/** What the cache view must know of a prompt. */
export interface CachePrompt {
  /** byte-block hashes of the canonical text (fingerprint.ts) */
  readonly hashes: Float64Array;
  /** where hashing goes on behind the last whole block */
  readonly end: readonly [high: number, low: number];
  /** canonical text */
  readonly text: Buffer;
  /** as the client named it; empty: the engine's default */
  readonly model: string;
  readonly cacheSalt: string;
  /** estimate by the text's length, or the true count where `exactTokens` */
  readonly promptTokens: number;
  /** tokens in one byte block of this prompt, by the same estimate */
  readonly tokensPerBlock: number;
  /** a prompt of token ids: its counts are the engine's own */
  readonly exactTokens: boolean;
}

/** What the door must know of a request to account for it. */
export interface LedgerPrompt extends CachePrompt {
  readonly stream: boolean;
  /** sequences that the call asks for; the prompt is that of the first */
  readonly sequences: number;
  /** an engine computes it; false: a route such as /tokenize, which its server answers alone */
  readonly computed: boolean;
}

/** Fingerprint of a prompt, the same at its entry and at its door. */
export function printOf(context: { readonly salt: string }, client: ClientRequest): Fingerprint {
  return fingerprint(client.prompt, { salt: context.salt, model: client.model ?? '', cacheSalt: client.cacheSalt });
}

/** The prompt as the door's ledger accounts for it. */
export function ledgerPrompt(
  context: { readonly tokens: TokenEstimate },
  client: ClientRequest,
  print: Fingerprint,
): LedgerPrompt {
  return {
    hashes: print.hashes,
    end: print.end,
    text: client.prompt,
    model: client.model ?? '',
    cacheSalt: client.cacheSalt,
    exactTokens: client.promptIsTokens,
    promptTokens: context.tokens.promptTokens(client),
    tokensPerBlock: tokensPerBlock(context, client),
    stream: client.stream,
    sequences: client.sequences,
    computed: !COMPUTES_NOTHING.test(client.path),
  };
}

/**
 * Prompt tokens in one prefix block of this prompt: exact for token ids, by the model's learned bytes per token for
 * text.
 */
export function tokensPerBlock(context: { readonly tokens: TokenEstimate }, client: ClientRequest): number {
  return BLOCK_BYTES / (client.promptIsTokens ? 4 : context.tokens.bytesPerToken(client.model));
}
