import { createHash, timingSafeEqual } from 'node:crypto';

/** True if an Authorization header carries the fleet's token. Takes the same time wherever the two differ. */
export function isFleetToken(header: string | undefined, token: string): boolean {
  const given = header?.startsWith('Bearer ') ? header.slice(7) : '';
  return timingSafeEqual(digest(given), digest(token));
}

function digest(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
