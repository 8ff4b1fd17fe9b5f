// The other side of `hostile-bodies`, a process of its own for each role.
// Usage: node hostile-peers.js engine; prints {"listening": url}. node hostile-peers.js sender: sends what its parent
// orders.
import { createServer, type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

const TOKEN_MS = 20;
const BYTES = 32 * 1024 * 1024 - 1024;
const CHAT = '/v1/chat/completions';

/** A cache of an ordinary size: what does not fit in it is never accounted for. */
const METRICS =
  'vllm:cache_config_info{block_size="16",num_gpu_blocks="2563",engine="0"} 1\nvllm:num_requests_running{engine="0"} 50\nvllm:num_requests_waiting{engine="0"} 0\n';

/** Order to send four bodies of one form at once; answered with the statuses. */
export interface Order {
  form: string;
  url: string;
}

const fill = (head: string, unit: string, tail: string): string =>
  head + unit.repeat(Math.floor((BYTES - head.length - tail.length) / unit.length)) + tail;

/** Bodies of 32 MB that cost a reader the most, each in its own way. */
const FORMS: Record<string, () => string> = {
  'empty messages': () => fill('{"messages":[', '{},', '{}],"model":"m"}'),
  'base64 pictures': () =>
    fill(
      '{"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,',
      'QUJD',
      '"}}]}]}',
    ),
  'deep nesting': () =>
    `{"model":"m","messages":[{"role":"user","content":${'['.repeat(BYTES / 2)}${']'.repeat(BYTES / 2)}}]}`,
  'one string': () => fill('{"model":"m","prompt":"', 'word ', '"}'),
  'escapes everywhere': () => fill('{"model":"m","messages":[{"role":"user","content":"', '\\n\\"\\u00fc', '"}]}'),
  '10 million numbers': () => `{"prompt":[${'12,'.repeat(10_000_000)}1],"model":"m"}`,
  'model at the end': () => fill('{"metadata":{"a":"', 'x', '"},"messages":[],"model":"m"}'),
  'duplicate keys': () => fill('{', '"model":"x","messages":[{}],', '"model":"m"}'),
};

if (process.argv[2] === 'engine') serveEngine();
else if (process.argv[2] === 'sender') {
  process.on('message', ({ form, url }: Order) => void send(form, url));
  process.on('disconnect', () => process.exit(0));
  process.send?.(Object.keys(FORMS));
}

async function send(form: string, url: string): Promise<void> {
  const body = Buffer.from((FORMS[form] as () => string)());
  process.send?.(await Promise.all(Array.from({ length: 4 }, () => post(url + CHAT, body))));
}

function post(url: string, body: Buffer): Promise<number> {
  return new Promise((resolve) => {
    const request = httpRequest(
      url,
      { method: 'POST', agent: false, headers: { 'content-type': 'application/json', 'content-length': body.length } },
      (response) => {
        response.resume().on('end', () => resolve(response.statusCode ?? 0));
      },
    );
    request.on('error', () => resolve(0));
    request.end(body);
  });
}

/**
 * Streams a token each 20 ms, with the time of its sending in it, to whoever asks for a stream; any other body gets its
 * answer when it is there.
 */
function serveEngine(): void {
  const server = createServer((request, response) => {
    const path = request.url ?? '';
    if (path === '/health') return void response.end();
    if (path === '/version') return void response.end('{"version":"0.0.0-bench"}');
    if (path === '/v1/models')
      return void response.end('{"object":"list","data":[{"id":"m","max_model_len":1000000}]}');
    if (path === '/metrics') return void response.end(METRICS);
    if (path.startsWith(CHAT)) return answer(request, response);
    response.writeHead(404).end();
  });
  server.listen(0, '127.0.0.1', () =>
    console.log(JSON.stringify({ listening: `http://127.0.0.1:${(server.address() as AddressInfo).port}` })),
  );
}

function answer(request: IncomingMessage, response: ServerResponse): void {
  request.resume().on('end', () => {
    if (request.headers['x-bench'] !== 'stream')
      return void response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const timer = setInterval(
      () => response.write(`data: {"choices":[{"index":0,"delta":{"content":"${Date.now()}"}}]}\n\n`),
      TOKEN_MS,
    );
    response.on('close', () => clearInterval(timer));
  });
}
