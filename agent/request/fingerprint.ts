import xxhash from 'xxhash-wasm';

const { h32Raw } = await xxhash();

/**
 * Bytes of canonical prompt text per prefix block: about 16 tokens of English, one engine block, so that what two
 * prompts share is known to an engine block. Part of the fleet's block identity, so it is not an option.
 */
export const BLOCK_BYTES = 64;
/** Prompt text beyond this is not fingerprinted, nor read: 2 MiB are half a million tokens. */
export const MAX_PROMPT_BYTES = 2 * 1024 * 1024;

/**
 * A prompt's chain of prefix-block hashes. Each hash, an integer below 2^53, stands for its block and everything before
 * it.
 */
export interface Fingerprint {
  hashes: Float64Array;
  /** bytes of canonical text */
  bytes: number;
  /** both lanes behind the last whole block: where hashing goes on if the text does */
  end: readonly [high: number, low: number];
}

/** What else decides whether two prompts may share cached blocks. */
export interface FingerprintScope {
  /** the fleet's secret, hex: without it, hashes cannot be matched against guessed prompts */
  salt: string;
  /** as requested: a LoRA adapter is a model name of its own */
  model: string;
  cacheSalt: string;
}

/**
 * Chained hashes of the whole blocks of `text`. Two 32-bit xxHash lanes make 53 bits: at 2 million blocks, one false
 * match in 10,000 fleets.
 */
export function fingerprint(text: Buffer, scope: FingerprintScope): Fingerprint {
  const seed = Buffer.from(`${scope.salt}\0${scope.model}\0${scope.cacheSalt}`);
  return chain([h32Raw(seed, 1), h32Raw(seed, 2)], text, Math.min(text.length, MAX_PROMPT_BYTES));
}

/** Chained hashes of the blocks that come to a prompt when `more` follows its text: those behind `print`'s. */
export function extendFingerprint(print: Pick<Fingerprint, 'hashes' | 'end'>, text: Buffer, more: Buffer): Fingerprint {
  const rest = Buffer.concat([text.subarray(print.hashes.length * BLOCK_BYTES), more]);
  return chain(
    print.end,
    rest,
    Math.max(0, Math.min(rest.length, MAX_PROMPT_BYTES - print.hashes.length * BLOCK_BYTES)),
  );
}

function chain(from: readonly [number, number], text: Buffer, maxBytes: number): Fingerprint {
  let [high, low] = from;
  const blocks = Math.floor(maxBytes / BLOCK_BYTES);
  const hashes = new Float64Array(blocks);
  for (let i = 0; i < blocks; i++) {
    const block = text.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
    high = h32Raw(block, high);
    low = h32Raw(block, low);
    // Zero marks an empty slot in the index.
    hashes[i] = (high & 0x1fffff) * 4294967296 + low || 1;
  }
  return { hashes, bytes: text.length, end: [high, low] };
}
