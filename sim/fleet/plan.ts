import { fingerprint, type Fingerprint } from '../../agent/request/fingerprint.ts';
import { chainRoot, promptBlockHashes } from '../engine/block-hash.ts';

/** Tokens of an engine's KV block. */
export const ENGINE_BLOCK_TOKENS = 16;
export const SIM_MODEL = 'sim';
/** The fleet's secret in simulation: fingerprints repeat from run to run. */
export const SIM_SALT = '00'.repeat(32);

/** One request as the simulated clients send it; made once for a trace, shared by all policies and seeds. */
export interface SimRequest {
  readonly index: number;
  readonly arrivalMs: number;
  /** token ids */
  readonly prompt: Int32Array;
  /** tokens at which the answer ends: only the engine and the oracle see it */
  readonly outputTokens: number;
  /** the same bytes as the agent reads them: token ids, little-endian */
  readonly bytes: Buffer;
  /** as the agent computes it */
  readonly print: Fingerprint;
  /** as the engine computes them */
  readonly blockHashes: Float64Array;
  /** who sent it, as the agent knows clients; '' where the trace does not tell */
  readonly client: string;
}

/** Makes a request of a trace ready for simulation: hashes of the agent and of the engine are computed once. */
export function simRequest(
  index: number,
  arrivalMs: number,
  prompt: Int32Array,
  outputTokens: number,
  client: string,
): SimRequest {
  const bytes = Buffer.from(prompt.buffer, prompt.byteOffset, prompt.byteLength);
  return {
    index,
    arrivalMs,
    prompt,
    outputTokens: Math.max(1, outputTokens),
    bytes,
    print: fingerprint(bytes, { salt: SIM_SALT, model: SIM_MODEL, cacheSalt: '' }),
    blockHashes: promptBlockHashes(prompt, ENGINE_BLOCK_TOKENS, chainRoot(undefined, undefined)),
    client,
  };
}
