import { createHash, timingSafeEqual } from 'node:crypto';

/** True if an Authorization header carries the fleet's token. Takes the same time wherever the two differ. */
export function isFleetToken(header: string | undefined, token: string): boolean {
  const given = header?.startsWith('Bearer ') ? header.slice(7) : '';
  return secretsMatch(given, token);
}

/** True if the two are equal. Compares digests in constant time, so that neither length nor content leaks. */
export function secretsMatch(given: string, secret: string): boolean {
  return timingSafeEqual(digestOf(given), digestOf(secret));
}

/** SHA-256 of a secret. */
export function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}
