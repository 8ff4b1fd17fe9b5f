import { createHash } from 'node:crypto';

/**
 * What a block's hash is of, as vLLM's hash_block_tokens has it: digest of the block before it, tokens, further keys.
 */
export type BlockKey = readonly [parent: Buffer, tokens: readonly number[], extra: readonly string[] | null];

export type ShaAlgorithm = 'sha256' | 'sha256_cbor';

/**
 * vLLM's hash of one full block (vllm/utils/hashing.py): sha256 of the key's pickle of protocol 5, or of its canonical
 * CBOR.
 */
export function vllmBlockHash(algorithm: ShaAlgorithm, key: BlockKey): Buffer {
  return sha256(algorithm === 'sha256' ? pickle(key) : cbor(key));
}

/** The parent of first blocks, NONE_HASH: the hash of the seed, PYTHONHASHSEED or vLLM's own. */
export function vllmNoneHash(algorithm: ShaAlgorithm, seed: string): Buffer {
  return sha256(algorithm === 'sha256' ? pickle(seed) : cbor(seed));
}

type Value = Buffer | string | number | null | readonly Value[];

function sha256(bytes: Buffer): Buffer {
  return createHash('sha256').update(bytes).digest();
}

/** Canonical CBOR (RFC 8949) of the values that block keys have; a Python tuple is an array. */
export function cbor(value: Value): Buffer {
  if (value === null) return Buffer.from([0xf6]);
  if (typeof value === 'number') return cborHead(0, value);
  if (typeof value === 'string') return Buffer.concat([cborHead(3, Buffer.byteLength(value)), Buffer.from(value)]);
  if (Buffer.isBuffer(value)) return Buffer.concat([cborHead(2, value.length), value]);
  return Buffer.concat([cborHead(4, value.length), ...value.map(cbor)]);
}

function cborHead(major: number, value: number): Buffer {
  const top = major << 5;
  if (value < 24) return Buffer.from([top | value]);
  if (value < 0x100) return Buffer.from([top | 24, value]);
  if (value < 0x10000) return Buffer.from([top | 25, value >> 8, value & 0xff]);
  const head = Buffer.from([top | 26, 0, 0, 0, 0]);
  head.writeUInt32BE(value, 1);
  return head;
}

const PROTO = Buffer.from([0x80, 5]);
const FRAME = 0x95;
const MEMOIZE = 0x94;
const STOP = 0x2e;

/**
 * Python's pickle, protocol 5, of the values that block keys have, each object once: every string, byte string and
 * non-empty tuple is memoised.
 */
export function pickle(value: Value): Buffer {
  const body = Buffer.concat([pickled(value), Buffer.from([STOP])]);
  const frame = Buffer.alloc(9);
  frame[0] = FRAME;
  frame.writeBigUInt64LE(BigInt(body.length), 1);
  return Buffer.concat([PROTO, frame, body]);
}

function pickled(value: Value): Buffer {
  if (value === null) return Buffer.from('N');
  if (typeof value === 'number') return pickledInt(value);
  if (typeof value === 'string')
    return Buffer.concat([Buffer.from([0x8c, Buffer.byteLength(value)]), Buffer.from(value), Buffer.from([MEMOIZE])]);
  if (Buffer.isBuffer(value)) return Buffer.concat([Buffer.from([0x43, value.length]), value, Buffer.from([MEMOIZE])]);
  const items = value.map(pickled);
  // Tuples of one to three have an opcode of their own; longer ones are all that lies above a mark.
  if (value.length >= 1 && value.length <= 3)
    return Buffer.concat([...items, Buffer.from([0x84 + value.length, MEMOIZE])]);
  return Buffer.concat([Buffer.from('('), ...items, Buffer.from('t'), Buffer.from([MEMOIZE])]);
}

function pickledInt(value: number): Buffer {
  if (value < 0x100) return Buffer.from([0x4b, value]);
  if (value < 0x10000) return Buffer.from([0x4d, value & 0xff, value >> 8]);
  const int = Buffer.from([0x4a, 0, 0, 0, 0]);
  int.writeInt32LE(value, 1);
  return int;
}
