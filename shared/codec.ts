import { Packr, Unpackr } from 'msgpackr';
import { z } from 'zod';
import { errorMessage, LodestarError } from './errors.ts';

// Plain records: a broadcast frame is encoded once for every receiver, and one that joined late must be able to read
// it.
const packr = new Packr({ useRecords: false, mapsAsObjects: true, variableMapSize: true });
const unpackr = new Unpackr({ useRecords: false, mapsAsObjects: true, int64AsType: 'number' });

/** Encodes a message as one binary frame (MessagePack). */
export function encode(message: unknown): Buffer {
  return packr.pack(message);
}

/** Decodes a frame. Errors: WIRE_TOO_LARGE, WIRE_MALFORMED. What comes out is not validated yet. */
export function decode(frame: Uint8Array, maxBytes: number): unknown {
  if (frame.byteLength > maxBytes)
    throw new LodestarError('WIRE_TOO_LARGE', `frame of ${frame.byteLength} bytes exceeds ${maxBytes}`);
  try {
    return unpackr.unpack(frame);
  } catch (error) {
    throw new LodestarError('WIRE_MALFORMED', `frame is not MessagePack: ${errorMessage(error)}`, { cause: error });
  }
}

/** Prefix-block hashes as little-endian doubles: they are integers below 2^53. */
export function packHashes(hashes: ArrayLike<number>): Uint8Array {
  return new Uint8Array(Float64Array.from(hashes).buffer);
}

/** Reverse of packHashes; copies, since the bytes of a decoded frame are not aligned. */
export function unpackHashes(bytes: Uint8Array): Float64Array {
  return new Float64Array(Uint8Array.from(bytes).buffer);
}

/** Token counts as little-endian uint32. */
export function packTokens(tokens: ArrayLike<number>): Uint8Array {
  return new Uint8Array(Uint32Array.from(tokens).buffer);
}

/** Reverse of packTokens. */
export function unpackTokens(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(Uint8Array.from(bytes).buffer);
}

/** A binary field of a message. */
export const bytesSchema = z.custom<Uint8Array>((value) => value instanceof Uint8Array, 'expected bytes');
