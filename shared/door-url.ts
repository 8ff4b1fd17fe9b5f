const MAX_CHARS = 2048;
const PROTOCOLS = ['http:', 'https:'];

/**
 * Why a text cannot be the URL of an HTTP peer, to follow the name of its key or field; undefined: it can. Requests
 * bring their own path.
 */
export function originProblem(text: string): string | undefined {
  if (text.length > MAX_CHARS) return `has more than ${MAX_CHARS} characters`;
  if (!URL.canParse(text) || !PROTOCOLS.includes(new URL(text).protocol)) return 'is not an http:// or https:// URL';
  const { pathname, search, hash, origin } = new URL(text);
  if (pathname !== '/' || search !== '' || hash !== '')
    return `has something behind its host and port: write ${origin}`;
  return undefined;
}
