import { z } from 'zod';
import { decode, encode } from '../../shared/codec.ts';

/** Where an entry asks a door which of its attempts are open there. */
export const ATTEMPTS_PATH = '/lodestar/attempts';
/** Largest answer that is read, and most attempts in it: an entry holds at most `agent.maxInFlight`. */
export const MAX_LIST_BYTES = 8 * 1024 * 1024;
const MAX_ATTEMPTS = 65_536;

/**
 * An attempt that a door holds: instance, the entry's number of it there, and ms since the engine's last byte for it.
 */
export type HeldAttempt = readonly [instance: string, seq: number, quietMs: number];

const listSchema = z.array(z.tuple([z.string(), z.number(), z.number()])).max(MAX_ATTEMPTS);

export function attemptsPath(entry: string, epoch: number): string {
  return `${ATTEMPTS_PATH}?entry=${encodeURIComponent(entry)}&epoch=${epoch}`;
}

export function encodeAttempts(list: readonly HeldAttempt[]): Buffer {
  return encode(list.slice(0, MAX_ATTEMPTS));
}

/** Undefined where the body is no such list. */
export function decodeAttempts(bytes: Uint8Array): HeldAttempt[] | undefined {
  try {
    return listSchema.parse(decode(bytes, MAX_LIST_BYTES));
  } catch {
    return undefined;
  }
}
