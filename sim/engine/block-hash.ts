const LOW = 4294967296;

/**
 * Starting value of a request's hash chain: requests of another LoRA or with another cache salt share no block. vLLM
 * puts the salt into the first block and the LoRA name into each; in a chain both come to the same.
 */
export function chainRoot(lora: string | undefined, salt: string | undefined): number {
  let a = 0x811c9dc5;
  let b = 0x1b873593;
  const text = `${lora ?? ''}\u0000${salt ?? ''}`;
  for (let i = 0; i < text.length; i++) {
    a = Math.imul(a ^ text.charCodeAt(i), 0x01000193);
    b = Math.imul(b ^ text.charCodeAt(i), 0x9e3779b1) ^ (b >>> 15);
  }
  return join(a, b);
}

/**
 * Hash of the full block of `size` tokens that follows `parent` (the hash of the block before it, or `chainRoot`): two
 * multiplicative 32-bit lanes folded to a positive 53-bit number. Cheap where vLLM takes sha256: with a million blocks
 * a collision has odds of about 1e-4. Tokens come from `prompt` and, past its end, from `output`.
 */
export function blockHash(parent: number, prompt: Int32Array, output: Int32Array, start: number, size: number): number {
  let a = parent | 0;
  let b = (parent / LOW) | 0;
  const end = start + size;
  for (let i = start; i < end; i++) {
    const token = i < prompt.length ? prompt[i]! : output[i - prompt.length]!;
    a = Math.imul(a ^ token, 0x9e3779b1);
    a ^= a >>> 16;
    b = Math.imul(b ^ a ^ (token << 7), 0x85ebca77);
    b ^= b >>> 13;
  }
  return join(Math.imul(a ^ (b >>> 5), 0xc2b2ae3d), Math.imul(b ^ (a >>> 7), 0x27d4eb2f));
}

const NO_OUTPUT = new Int32Array(0);

/** Hashes of all full blocks of a prompt. A simulator computes them once and gives them to every engine it tries. */
export function promptBlockHashes(prompt: Int32Array, blockSize: number, root: number): Float64Array {
  const hashes = new Float64Array(Math.floor(prompt.length / blockSize));
  let parent = root;
  for (let block = 0; block < hashes.length; block++) {
    parent = blockHash(parent, prompt, NO_OUTPUT, block * blockSize, blockSize);
    hashes[block] = parent;
  }
  return hashes;
}

function join(a: number, b: number): number {
  const value = ((b ^ (b >>> 16)) & 0x1fffff) * LOW + ((a ^ (a >>> 16)) >>> 0);
  return value === 0 ? 1 : value;
}
