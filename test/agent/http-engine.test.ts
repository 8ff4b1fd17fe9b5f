import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../agent/request/fingerprint.ts';
import type { RunningAgent } from '../../agent/main.ts';
import type { HttpAnswer, HttpOptions } from '../helpers/http.ts';
import { COMPLETIONS, instanceOf, ledgerOf, LinkedFleet, upCount, urlOf } from '../helpers/linked-fleet.ts';
import { StubVllm } from '../helpers/stub-vllm.ts';

let fleet: LinkedFleet;
const call = (base: string, path: string, options: HttpOptions = {}): Promise<HttpAnswer> =>
  fleet.call(base + path, options);
const post = (base: string, path: string, body: object, headers: Record<string, string> = {}): Promise<HttpAnswer> =>
  call(base, path, { body: JSON.stringify(body), headers });

describe('what reaches the engine', () => {
  const stub = new StubVllm('stub-model');
  let agent: RunningAgent;
  let outer: RunningAgent;
  beforeAll(async () => {
    fleet = new LinkedFleet();
    const url = await stub.listen();
    agent = await fleet.startLinked('door', [{ url, apiKey: 'engine-key' }], []);
    outer = await fleet.startLinked('outer', [], [agent]);
    await fleet.until('up', () => upCount(agent) === 1 && upCount(outer) === 1);
  });
  afterAll(async () => {
    await fleet.stop();
    await stub.close();
  });

  const headers = {
    'x-request-id': 'r-1',
    'x-lodestar-hop': 'forged',
    'x-lodestar-report': 'forged',
    'x-lodestar-failure': 'forged',
    connection: 'close, x-gone',
    te: 'trailers',
    authorization: 'Bearer of-client',
    'accept-language': 'de',
  };

  test.each([
    ['by function call', () => agent],
    ['over a hop', () => outer],
  ])("%s: the body as it came, headers without ours and the connection's, the engine's key", async (_name, entryOf) => {
    stub.requests.length = 0;
    const body = '{"model": "stub-model",\n "prompt":"x", "big": 12345678901234567890, "vllm_xargs":{"a":1}}';
    expect((await call(urlOf(entryOf()), `${COMPLETIONS}?q=%20a`, { body, headers })).status).toBe(200);
    expect(stub.requests).toHaveLength(1);
    const [seen] = stub.requests;
    expect(seen).toMatchObject({ method: 'POST', path: `${COMPLETIONS}?q=%20a`, body });
    expect(seen?.headers).toMatchObject({
      'x-request-id': 'r-1',
      'accept-language': 'de',
      authorization: 'Bearer engine-key',
    });
    for (const name of Object.keys(seen?.headers ?? {})) expect(name.startsWith('x-lodestar')).toBe(false);
    expect(seen?.headers['te']).toBeUndefined();
    expect(seen?.headers['content-length']).toBe(String(Buffer.byteLength(body)));
  });

  test('headers of the answer pass, without ours: an engine cannot speak for a door', async () => {
    stub.answer = (_request, response) =>
      response
        .writeHead(418, { 'x-request-id': 'r-2', 'x-lodestar-report': 'AAAA', 'set-cookie': ['a=1', 'b=2'] })
        .end('teapot');
    const answer = await post(urlOf(outer), '/v1/anything', {});
    expect(answer).toMatchObject({ status: 418, body: 'teapot' });
    expect(answer.headers).toMatchObject({ 'x-request-id': 'r-2', 'set-cookie': ['a=1', 'b=2'] });
    expect(answer.headers['x-lodestar-report']).toBeUndefined();
  });

  describe('the usage chunk that ends a stream', () => {
    const usage = 'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":1}}\n\n';
    const token = 'data: {"choices":[{"text":"x"}]}\n\n';
    const done = 'data: [DONE]\n\n';
    const ask = (options: object = {}) =>
      post(urlOf(outer), COMPLETIONS, { model: 'stub-model', prompt: 'x'.repeat(900), stream: true, ...options });
    const door = () => agent.context.instances.views.get(instanceOf(agent))!.local!;
    const begin = (forced: boolean): void => {
      door().usageForced = undefined;
      stub.requests.length = 0;
      stub.answer = ({ body }, response) => {
        const asked =
          (JSON.parse(body) as { stream_options?: { include_usage?: boolean } }).stream_options?.include_usage === true;
        response
          .writeHead(200, { 'content-type': 'text/event-stream' })
          .end(`${token}${asked || forced ? usage : ''}${done}`);
      };
    };

    test('is asked for, learned from and stripped, once a stream has shown that it does not come unasked', async () => {
      begin(false);
      for (let i = 0; i < 2; i++) expect((await ask()).body).toBe(token + done);
      expect(stub.requests.map(({ body }) => body.includes('include_usage'))).toEqual([false, true]);
      await fleet.until('learned at both', () => outer.context.tokens.bytesPerToken('stub-model') === 9);
    });

    test('stays where the engine sends it unasked (--enable-force-include-usage), and where the client has asked for it in any way that vLLM takes', async () => {
      begin(true);
      for (const options of [undefined, null, {}, { include_usage: false }, undefined])
        expect((await ask({ stream_options: options })).body).toBe(token + usage + done);
      begin(false);
      await ask();
      stub.answer = (_request, response) =>
        response.writeHead(200, { 'content-type': 'text/event-stream' }).end(token + usage + done);
      for (const value of [true, 1, 'true', 'Yes'])
        expect((await ask({ stream_options: { include_usage: value } })).body).toBe(token + usage + done);
    });
  });

  test('a prompt that the engine refused is not believed cached, neither at its door nor at its entry', async () => {
    stub.answer = (_request, response) =>
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"too long"}}');
    const prompt = 'never computed '.repeat(100);
    // The entry knows of the door's cache only what it has sent itself: there is no brain.
    const known = () => ({
      expected: outer.context.instances.views.get(instanceOf(agent))!.expected.size,
      door: agent.context.instances.index.blocksOf(instanceOf(agent)),
    });
    await fleet.advance(100);
    const before = known();
    expect((await post(urlOf(outer), COMPLETIONS, { prompt })).status).toBe(400);
    expect((await post(urlOf(agent), COMPLETIONS, { prompt })).status).toBe(400);
    await fleet.advance(100);
    expect(known()).toEqual(before);
    stub.answer = (_request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    expect((await post(urlOf(outer), COMPLETIONS, { prompt })).status).toBe(200);
    await fleet.advance(100);
    const blocks = Math.floor(prompt.length / BLOCK_BYTES);
    expect(known()).toEqual({ expected: before.expected + 1, door: before.door + blocks });
  });

  test.each(['/tokenize', '/detokenize', '/v1/messages/count_tokens'])(
    '%s goes to an engine, which computes nothing for it',
    async (path) => {
      stub.answer = (_request, response) =>
        response.writeHead(200, { 'content-type': 'application/json' }).end('{"count":2}');
      const blocks = (): number => outer.context.instances.index.blocksOf(instanceOf(agent));
      await fleet.advance(100);
      const before = blocks();
      const prompt = `${path} never computed `.repeat(100);
      for (const entry of [agent, outer]) {
        expect(await post(urlOf(entry), path, { model: 'stub-model', prompt })).toMatchObject({
          status: 200,
          body: '{"count":2}',
          headers: { 'x-lodestar-instance': instanceOf(agent) },
        });
      }
      await fleet.advance(100);
      expect(blocks()).toBe(before);
    },
  );

  describe('a stream of named events', () => {
    const event = (name: string, rest: object = {}): string =>
      `event: ${name}\ndata: ${JSON.stringify({ type: name, ...rest })}\n\n`;
    const begin = (response: ServerResponse, text: string): ServerResponse => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).write(text);
      return response;
    };

    test('that breaks off within a message ends with an error event of the Messages API', async () => {
      const text = event('message_start') + event('content_block_delta');
      stub.answer = (_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.write(`${text}event: content_bl`, () => response.destroy());
      };
      const answer = await post(urlOf(outer), '/v1/messages', { messages: [], stream: true });
      expect(answer).toMatchObject({ status: 200, cut: false });
      expect(answer.body).toBe(
        `${text}event: error\ndata: {"type":"error","error":{"type":"api_error","message":"The instance broke off in the middle of its answer."}}\n\n`,
      );
    });

    test('whose engine fails before its first token has not begun: the client gets an answer', async () => {
      const text = event('response.created') + event('response.in_progress');
      let calls = 0;
      stub.answer = (_request, response) => {
        calls += 1;
        begin(response, text);
        setImmediate(() => response.destroy());
      };
      const answer = await post(urlOf(outer), '/v1/responses', { input: 'x', stream: true });
      expect(answer.status).toBe(502);
      expect(calls).toBe(1);
    });

    test('is not given up while its first token is awaited as long as that of any other', async () => {
      const text = event('response.created');
      let finish = (): void => undefined;
      stub.answer = (_request, response) => {
        begin(response, text);
        finish = () => void response.end(event('response.output_text.delta') + event('response.completed'));
      };
      const pending = post(urlOf(outer), '/v1/responses', { input: 'x', stream: true });
      await fleet.advance(65_000, 500);
      finish();
      expect((await pending).body).toBe(text + event('response.output_text.delta') + event('response.completed'));
    });
  });

  test('a client that does not read slows its engine down instead of filling the agents', async () => {
    const chunk = Buffer.alloc(65_536, 0x20);
    const total = 800;
    let written = 0;
    stub.answer = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain' });
      const pump = (): void => {
        while (written < total) {
          written += 1;
          if (!response.write(chunk)) return void response.once('drain', pump);
        }
        response.end();
      };
      pump();
    };
    const answer = await new Promise<IncomingMessage>((resolve) => {
      httpRequest(urlOf(outer) + COMPLETIONS, { method: 'POST' }, resolve).end('{"prompt":"x"}');
      void fleet.advance(500);
    });
    let before = -1;
    while (before !== written) {
      before = written;
      await fleet.advance(200);
    }
    expect(written).toBeLessThan(total / 2);
    let bytes = 0;
    answer.on('data', (data: Buffer) => (bytes += data.length));
    await fleet.until('all was read', () => bytes === total * chunk.length, 50_000);
  });

  test('the time that a client gives its request bounds it: an error event within a stream, 504 before it, 400 where it is no time', async () => {
    stub.answer = (request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      if (!request.body.includes('silent')) response.write('data: {"choices":[{"text":"x"}]}\n\n');
    };
    const within = { 'x-request-timeout-ms': '2000' };
    const begun = await post(urlOf(outer), COMPLETIONS, { prompt: 'x', stream: true }, within);
    expect(begun.status).toBe(200);
    expect(begun.body).toContain('data: {"error":{"message":"The time for this request is over."');
    expect(begun.body.endsWith('data: [DONE]\n\n')).toBe(true);
    expect(await post(urlOf(outer), COMPLETIONS, { prompt: 'silent', stream: true }, within)).toMatchObject({
      status: 504,
    });
    expect(await post(urlOf(outer), COMPLETIONS, { prompt: 'x' }, { 'x-request-timeout-ms': 'soon' })).toMatchObject({
      status: 400,
    });
    await fleet.until('all was aborted', () => ledgerOf(agent).inFlight === 0, 100);
    expect(outer.context.receipts.newest(2).map((one) => one.culprit)).toEqual(['client', 'client']);
  });

  test('half of a plain answer is cut, not ended', async () => {
    stub.answer = (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' }).write('{"half":');
      setImmediate(() => response.destroy());
    };
    for (const base of [agent, outer]) {
      const answer = await post(urlOf(base), COMPLETIONS, { prompt: 'x' });
      expect(answer.cut).toBe(true);
    }
  });
});
