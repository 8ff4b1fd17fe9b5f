import { z } from 'zod';
import type { ClientRequest, ReadBefore } from './read.ts';

/** What does not fit is left to the door to read. */
const MAX_HEADER_CHARS = 4096;
const offset = z.int().nonnegative();
const amount = z.number().nonnegative();

const readSchema = z.object({
  model: z.string().optional(),
  stream: z.boolean(),
  usageSplice: z.object({ start: offset, end: offset, text: z.string() }).optional(),
  promptBytes: amount,
  promptEnd: offset,
  maxTokens: amount,
  sequences: amount,
  priority: z.number(),
  cacheSalt: z.string(),
});

/** What an entry has read of a body, as the text of a header for the door; undefined if it is too long for one. */
export function encodeRead(client: ClientRequest): string | undefined {
  const { model, stream, usageSplice, promptBytes, promptEnd, maxTokens, sequences, priority, cacheSalt } = client;
  const json = JSON.stringify({
    model,
    stream,
    usageSplice,
    promptBytes,
    promptEnd,
    maxTokens,
    sequences,
    priority,
    cacheSalt,
  });
  const text = Buffer.from(json).toString('base64url');
  return text.length <= MAX_HEADER_CHARS ? text : undefined;
}

/**
 * What the header of an entry says; undefined where there is none or it is not valid: then the door reads the body as
 * an entry does.
 */
export function decodeRead(text: unknown): ReadBefore | undefined {
  if (typeof text !== 'string' || text.length > MAX_HEADER_CHARS) return undefined;
  try {
    const { model, usageSplice, ...read } = readSchema.parse(JSON.parse(Buffer.from(text, 'base64url').toString()));
    if (usageSplice && usageSplice.start > usageSplice.end) return undefined;
    return { ...read, model, usageSplice };
  } catch {
    return undefined;
  }
}
