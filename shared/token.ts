import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * True if an Authorization header carries the fleet's token as `Bearer <token>`. The scheme is of any case, and one or
 * more blanks follow it (RFC 9110, section 11). Compares digests in constant time, so that neither the token's length
 * nor its content leaks.
 */
export function isFleetToken(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(\S+)$/i.exec(header ?? '')?.[1];
  return given !== undefined && timingSafeEqual(digestOf(given), digestOf(token));
}

/** SHA-256 of a secret. */
export function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
