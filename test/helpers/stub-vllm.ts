import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface StubRequest {
  method: string;
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/**
 * The least that an agent takes for a vLLM server: healthy, with one model. It keeps what it was asked under /v1 and
 * answers as the test says.
 */
export class StubVllm {
  readonly requests: StubRequest[] = [];
  answer: (request: StubRequest, response: ServerResponse) => void = (_request, response) =>
    response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
  private readonly model: string;
  private readonly server = createServer((request, response) => void this.serve(request, response));

  constructor(model: string) {
    this.model = model;
  }

  async listen(): Promise<string> {
    await new Promise<void>((resolve) => this.server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    this.server.closeAllConnections();
    return new Promise((resolve) => this.server.close(() => resolve()));
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const path = request.url ?? '';
    if (path === '/health') return void response.end();
    if (path === '/version') return void response.end('{"version":"0.0.0-stub"}');
    if (path === '/metrics') return void response.writeHead(404).end();
    if (path === '/v1/models' && request.headers['x-from-test'] === undefined)
      return void response.end(JSON.stringify({ object: 'list', data: [{ id: this.model, max_model_len: 4096 }] }));
    const seen = {
      method: request.method ?? '',
      path,
      headers: request.headers,
      body: Buffer.concat(chunks).toString(),
    };
    this.requests.push(seen);
    this.answer(seen, response);
  }
}
