import type { TraceRequest } from './trace-format.ts';

/** Bits of a token id. */
const MASK = 0x7fffffff;
const GOLDEN = 0x9e3779b1;

/**
 * Token ids (0 to 2³¹ − 1) of a trace request's prompt, exactly `inputTokens` of them. Blocks with the same id hold the
 * same tokens; blocks with different ids (below 2³¹) differ in every token. Another seed gives other tokens. Depends on
 * nothing else; some ns a token.
 */
export function simPrompt(
  request: Pick<TraceRequest, 'hashIds' | 'inputTokens' | 'blockTokens'>,
  seedOfTrace: number,
): Int32Array {
  const { hashIds, inputTokens, blockTokens } = request;
  const tokens = new Int32Array(inputTokens);
  const last = hashIds.length - 1;
  let at = 0;
  for (let block = 0; block <= last; block++) {
    const end = block === last ? inputTokens : Math.min(inputTokens, Math.round((block + 1) * blockTokens));
    const id = hashIds[block]!;
    let state = mix((id ^ mix(Math.floor(id / 2147483648) & MASK) ^ mix(seedOfTrace & MASK)) & MASK);
    for (; at < end; at++) {
      tokens[at] = mix(state);
      state = (state + GOLDEN) & MASK;
    }
  }
  return tokens;
}

/**
 * A permutation of the 31-bit numbers that scatters neighbours: xor with shifts, odd multipliers (the finaliser of
 * MurmurHash3, 31 bits wide).
 */
function mix(value: number): number {
  let x = value ^ (value >>> 15);
  x = Math.imul(x, 0x85ebca6b) & MASK;
  x ^= x >>> 13;
  x = Math.imul(x, 0xc2b2ae35) & MASK;
  return x ^ (x >>> 16);
}
