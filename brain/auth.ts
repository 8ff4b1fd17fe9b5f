import { createHash, timingSafeEqual } from 'node:crypto';

/** SHA-256 of a secret. */
export function digestOf(secret: string): Buffer {
  return createHash('sha256').update(secret).digest();
}

/** True if the header is `Bearer <token>`. Compares digests in constant time, so that neither length nor content leaks. */
export function bearerMatches(header: string | undefined, token: string): boolean {
  const match = /^Bearer +(\S+)$/i.exec(header ?? '');
  return match !== null && timingSafeEqual(digestOf(match[1] as string), digestOf(token));
}
