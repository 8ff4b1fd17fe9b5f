import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** An event of vLLM's completions stream. */
export const tokenEvent = (text: string): string =>
  `data: {"id":"cmpl-1","object":"text_completion","choices":[{"index":0,"text":${JSON.stringify(text)},"finish_reason":null}]}\n\n`;
export const usageEvent = (prompt: number, completion: number, cached?: number): string =>
  `data: {"id":"cmpl-1","choices":[],"usage":{"prompt_tokens":${prompt},"total_tokens":${prompt + completion},"completion_tokens":${completion},"prompt_tokens_details":${cached === undefined ? 'null' : `{"cached_tokens":${cached}}`}}}\n\n`;
export const doneEvent = 'data: [DONE]\n\n';

/** What a request asked for. */
export interface SeenRequest {
  path: string;
  body: Record<string, unknown>;
}

/** A server that hands each POST to `answer` and lists one model; close it when done. */
export async function startServer(
  answer: (seen: SeenRequest, response: ServerResponse) => void,
): Promise<{ url: string; seen: SeenRequest[]; close: () => Promise<void> }> {
  const seen: SeenRequest[] = [];
  const server = createServer((request: IncomingMessage, response) => {
    if (request.method === 'GET') {
      response.end(JSON.stringify({ data: [{ id: 'm' }] }));
      return;
    }
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const one = {
        path: request.url ?? '',
        body: JSON.parse(Buffer.concat(chunks).toString('utf8')) as Record<string, unknown>,
      };
      seen.push(one);
      answer(one, response);
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    close: async () => {
      server.closeAllConnections();
      await new Promise((closed) => server.close(closed));
    },
  };
}

/** A whole good answer of `n` tokens. */
export function answerWell(response: ServerResponse, n: number, cached?: number): void {
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (let at = 0; at < n; at++) response.write(tokenEvent(` t${at}`));
  response.end(usageEvent(100, n, cached) + doneEvent);
}
