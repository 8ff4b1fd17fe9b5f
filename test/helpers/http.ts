import { type IncomingHttpHeaders, request as httpRequest } from 'node:http';

export interface HttpAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: string;
  /** the connection broke before the answer ended */
  cut: boolean;
}

export interface HttpOptions {
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  signal?: AbortSignal;
  /** called with each piece of the answer */
  onData?: (text: string) => void;
}

/** One request on a connection of its own, path sent as given; never rejects: a refused connection is status 0. */
export function send(url: string, options: HttpOptions = {}): Promise<HttpAnswer> {
  const { hostname, port } = new URL(url);
  const path = url.slice(url.indexOf('/', 'http://'.length));
  return new Promise((resolve) => {
    const answer: HttpAnswer = { status: 0, headers: {}, body: '', cut: true };
    const { body, signal } = options;
    const length =
      body === undefined || options.headers?.['transfer-encoding']
        ? {}
        : { 'content-length': String(Buffer.byteLength(body)) };
    const headers = {
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
      ...length,
      ...options.headers,
    };
    const request = httpRequest(
      {
        hostname,
        port,
        path,
        method: options.method ?? (body === undefined ? 'GET' : 'POST'),
        headers,
        agent: false,
        ...(signal ? { signal } : {}),
      },
      (response) => {
        answer.status = response.statusCode ?? 0;
        answer.headers = response.headers;
        response.setEncoding('utf8').on('data', (text: string) => {
          answer.body += text;
          options.onData?.(text);
        });
        response.on('end', () => (answer.cut = false));
        response.on('close', () => resolve(answer));
        response.on('error', () => resolve(answer));
      },
    );
    request.on('error', () => resolve(answer));
    request.end(body);
  });
}
