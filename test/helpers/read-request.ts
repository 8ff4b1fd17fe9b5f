import type { IncomingHttpHeaders } from 'node:http';
import { type ClientRequest, type ReadBefore, RequestReader } from '../../agent/request/read.ts';

/** Reads a request whose body came in these pieces. */
export function readPieces(
  path: string,
  headers: IncomingHttpHeaders,
  pieces: readonly Buffer[],
  before?: ReadBefore,
): ClientRequest {
  const reader = new RequestReader('POST', path, headers, before);
  for (const piece of pieces) reader.push(piece);
  return reader.finish(pieces);
}

/** Reads a request whose body came in one piece. */
export function readRequest(path: string, headers: IncomingHttpHeaders, body: Buffer | string): ClientRequest {
  return readPieces(path, headers, body.length > 0 ? [Buffer.from(body)] : []);
}
