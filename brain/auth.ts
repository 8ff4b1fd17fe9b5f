import { secretsMatch } from '../shared/token.ts';

/** True if the header is `Bearer <token>`. */
export function bearerMatches(header: string | undefined, token: string): boolean {
  const match = /^Bearer +(\S+)$/i.exec(header ?? '');
  return match !== null && secretsMatch(match[1] as string, token);
}
