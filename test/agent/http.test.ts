import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES } from '../../agent/request/fingerprint.ts';
import { signHop } from '../../agent/wire/hop.ts';
import type { RunningAgent } from '../../agent/main.ts';
import type { RunningEmulator } from '../../sim/engine/server.ts';
import { MODEL, TOKEN } from '../helpers/fleet.ts';
import { type HttpAnswer, type HttpOptions, send } from '../helpers/http.ts';
import { CHAT, completion, COMPLETIONS, instanceOf, ledgerOf, LinkedFleet, upCount, urlOf } from '../helpers/linked-fleet.ts';
import { reportOf } from '../helpers/reports.ts';
import { StubVllm } from '../helpers/stub-vllm.ts';

let fleet: LinkedFleet;
const call = (base: string, path: string, options: HttpOptions = {}): Promise<HttpAnswer> => fleet.call(base + path, options);
const post = (base: string, path: string, body: object, headers: Record<string, string> = {}): Promise<HttpAnswer> => call(base, path, { body: JSON.stringify(body), headers });
const errorOf = (answer: HttpAnswer) => (JSON.parse(answer.body) as { error: { message: string; type: string; param: string | null; code: number } }).error;

describe('two agents', () => {
  let near: RunningEmulator;
  let entry: RunningAgent;
  let door: RunningAgent;
  beforeAll(async () => {
    fleet = new LinkedFleet();
    ({ near, entry, door } = await fleet.startPair({ 'agent.bodyLimitBytes': 20_000, 'agent.maxInFlight': 8 }));
  });
  afterAll(() => fleet.stop());

  /** Ids and times differ from call to call; all else must not. */
  const comparable = (text: string): string => text.replaceAll(/"(id|created|system_fingerprint)":("[^"]*"|\d+|null)/g, '"$1":0').replaceAll(/"metrics":\{[^}]*\}/g, '"metrics":0');

  test.each([
    ['a chat', CHAT, { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 7 }],
    ['a completion', COMPLETIONS, completion()],
    ['a batch of token ids, twice each', COMPLETIONS, completion({ prompt: [[1, 2, 3], [4, 5]], n: 2 })],
    ['a chat, streamed', CHAT, { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 7, stream: true }],
    ['a completion, streamed with usage', COMPLETIONS, completion({ stream: true, stream_options: { include_usage: true } })],
    ['a completion, streamed with running usage', COMPLETIONS, completion({ stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } })],
    ['an error of the engine', COMPLETIONS, completion({ max_tokens: 1_000_000 })],
  ])('%s through its door and over a hop is what the engine says', async (_name, path, body) => {
    const direct = await post(near.url, path, body);
    const through = new Set<string | undefined>();
    for (let i = 0; i < 2; i++) {
      const answer = await post(urlOf(entry), path, body);
      expect(answer.status).toBe(direct.status);
      expect(answer.headers['content-type']).toBe(direct.headers['content-type']);
      expect(comparable(answer.body)).toBe(comparable(direct.body));
      for (const name of Object.keys(answer.headers)) if (name.startsWith('x-lodestar')) expect(name).toBe('x-lodestar-instance');
      through.add(answer.headers['x-lodestar-instance'] as string);
    }
    expect([...through].toSorted()).toEqual([instanceOf(entry), instanceOf(door)].toSorted());
  });

  test('the openai client: models, completion, chat, stream', async () => {
    const client = new OpenAI({ baseURL: `${urlOf(entry)}/v1`, apiKey: 'none', maxRetries: 0 });
    const models = await fleet.during(client.models.list());
    expect(models.data).toMatchObject([{ id: MODEL, object: 'model', max_model_len: 32_768 }]);
    const text = await fleet.during(client.completions.create({ model: MODEL, prompt: 'Hi', max_tokens: 5 }));
    expect(text.usage).toMatchObject({ completion_tokens: 5 });
    const messages = [{ role: 'user' as const, content: 'Hi' }];
    const chat = await fleet.during(client.chat.completions.create({ model: MODEL, messages, max_tokens: 8 }));
    const stream = await fleet.during(client.chat.completions.create({ model: MODEL, messages, max_tokens: 8, stream: true }));
    const collect = async (): Promise<string> => {
      let all = '';
      for await (const chunk of stream) all += chunk.choices[0]?.delta.content ?? '';
      return all;
    };
    expect(await fleet.during(collect())).toBe(chat.choices[0]?.message.content);
    await expect(fleet.during(client.chat.completions.create({ model: 'nope', messages }))).rejects.toThrow('404 The model `nope` does not exist.');
  });

  describe('bad requests, in vLLM\'s shape', () => {
    test.each([
      ['not JSON', '{"model":', 400, 'Bad Request', null],
      ['no object', '[1]', 400, 'Bad Request', 'body'],
      ['an unknown model', '{"model":"nope","prompt":"x"}', 404, 'NotFoundError', 'model'],
      ['a model that is named like a property of every object', '{"model":"constructor","prompt":"x"}', 404, 'NotFoundError', 'model'],
      ['too large', JSON.stringify({ prompt: 'x'.repeat(30_000) }), 413, 'RequestEntityTooLarge', null],
      ['nested too deeply', `{"messages":[],"tools":${'['.repeat(9000)}${']'.repeat(9000)}}`, 400, 'Bad Request', 'body.messages'],
    ])('%s', async (_name, body, status, type, param) => {
      const answer = await call(urlOf(entry), CHAT, { body });
      expect(answer.status).toBe(status);
      expect(errorOf(answer)).toMatchObject({ type, param, code: status });
      expect(answer.body).not.toMatch(/\.ts|\bat |node_modules|stack/);
    });

    test('a body of unknown length over the limit', async () => {
      const answer = await call(urlOf(entry), CHAT, { body: JSON.stringify({ prompt: 'x'.repeat(30_000) }), headers: { 'transfer-encoding': 'chunked' } });
      expect(answer.status).toBe(413);
    });
  });

  test.each([
    '/v1/load_lora_adapter', '/v1/unload_lora_adapter', '/v1/load_lora_adapter/', '/v1/load_lora_adapter?x=1', '/v1/load%5Flora_adapter', '/v1/%6Coad_lora_adapter', '/%76%31/load_lora_adapter',
    '/v1/%6Coad_lora_adapter?x=%zz', '/v1/load_lora_adapter#x', '/v1//load_lora_adapter', '/v1/%2e%2e/sleep?x=%ff', '/v1/../reset_prefix_cache', '/v1/%2e%2e/sleep', '/v1/./sleep', '/reset_prefix_cache', '/sleep', '/collective_rpc', '/tokenize/x', '/x/tokenize', '//tokenize', '/v1', '/',
  ])('not for clients: POST %s', async (path) => {
    const answer = await call(urlOf(entry), path, { body: '{}' });
    expect(answer.status).toBe(404);
    expect(answer.headers['x-lodestar-instance']).toBeUndefined();
  });

  test.each(['/v1/%zz', '/v1/%ff', '/v1/%6Coad_lora_adapter/%zz', '/v1/x%ff?x=1'])('a path that cannot be decoded: %s', async (path) => {
    for (const method of ['GET', 'POST']) {
      const answer = await call(urlOf(entry), path, method === 'POST' ? { body: '{}' } : {});
      expect(answer.status).toBe(400);
      expect(answer.headers['x-lodestar-instance']).toBeUndefined();
      expect(errorOf(answer)).toMatchObject({ type: 'Bad Request', code: 400 });
    }
  });

  test('an administration route behind an origin in the request line is not for clients', async () => {
    const { hostname, port } = new URL(urlOf(entry));
    const status = await fleet.during(
      new Promise((resolve, reject) => {
        const request = httpRequest({ hostname, port, method: 'POST', path: 'http://x/v1/load_lora_adapter' }, (answer) => resolve(answer.resume().statusCode));
        request.on('error', reject).end('{}');
      }),
    );
    expect(status).toBe(404);
  });

  test('reports, receipts and cache resets need the fleet\'s token', async () => {
    const reset = `/lodestar/instances/${encodeURIComponent(instanceOf(entry))}/reset-prefix-cache`;
    for (const authorization of ['', 'Bearer wrong', TOKEN]) {
      const headers = { authorization };
      expect((await call(urlOf(entry), '/lodestar/report', { headers })).status).toBe(401);
      expect((await call(urlOf(entry), '/lodestar/receipts', { headers })).status).toBe(401);
      expect((await call(urlOf(entry), reset, { method: 'POST', headers })).status).toBe(401);
    }
    const headers = { authorization: `Bearer ${TOKEN}` };
    const receipts = JSON.parse((await call(urlOf(entry), '/lodestar/receipts?limit=3', { headers })).body) as object[];
    expect(receipts).toHaveLength(3);
    expect(receipts[0]).toMatchObject({ policy: 'round-robin', reason: 'config', tableVersion: 7 });
    for (const limit of ['0', '-1', 'x', '1e9', 'NaN', 'Infinity']) expect((await call(urlOf(entry), `/lodestar/receipts?limit=${limit}`, { headers })).status).toBe(200);
  });

  test('status, metrics, health and readiness', async () => {
    // The report in an answer's headers still counts its request.
    await fleet.advance(600);
    const status = JSON.parse((await call(urlOf(entry), '/lodestar/status')).body) as Record<string, unknown> & { instances: Record<string, unknown>[]; routing: object };
    expect(status).toMatchObject({ agent: 'entry', draining: false, inFlight: 0, brain: { url: '', connected: false }, samples: { dropped: 0 } });
    expect(status.routing).toMatchObject({ policy: 'round-robin', reason: 'config', objective: 'ttft', tableVersion: 7, scorer: 'prior-only', localTrust: { trusted: true } });
    expect(status.instances).toHaveLength(2);
    for (const instance of status.instances) {
      expect(instance).toMatchObject({ health: 'up', draining: false, breaker: 'closed', models: [MODEL], reservations: 0, limits: { kvTokens: 64_000 - 16, blockTokens: 16, maxModelLen: 32_768 } });
      expect(instance['ageMs']).toBeLessThan(2000);
      expect(instance['ledger']).toMatchObject({ inFlight: 0 });
      expect(instance['law']).toHaveProperty('c0');
    }
    expect(status['collectors']).not.toHaveLength(0);
    const metrics = await call(urlOf(entry), '/metrics');
    expect(metrics.headers['content-type']).toContain('text/plain');
    for (const name of ['in_flight_requests 0', 'table_version 7', 'learned_in_force 0', `attempts_total{instance="${instanceOf(door)}",status="ok",culprit="nobody"}`]) expect(metrics.body.includes(name), name).toBe(true);
    expect((await call(urlOf(entry), '/health')).status).toBe(200);
    expect(JSON.parse((await call(urlOf(entry), '/ready')).body)).toEqual({ ready: true });
  });

  test('more requests than the entry may hold are refused at once', async () => {
    const held = Array.from({ length: 8 }, () => send(urlOf(entry) + COMPLETIONS, { body: JSON.stringify(completion({ max_tokens: 200 })) }));
    await fleet.until('all are held', () => entry.context.inFlight === 8);
    const answer = await post(urlOf(entry), COMPLETIONS, completion());
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(errorOf(answer).message).toContain('agent.maxInFlight');
    expect((await fleet.during(Promise.all(held))).map((one) => one.status)).toEqual(Array.from({ length: 8 }, () => 200));
    await fleet.until('all are let go', () => entry.context.inFlight === 0 && ledgerOf(entry).inFlight === 0 && ledgerOf(door).inFlight === 0);
    expect(ledgerOf(entry).totals().usedTokens).toBe(0);
  });

  test('a failure of our own is answered, says nothing of its cause, and leaves nothing behind', async () => {
    const { decider } = entry.context;
    const decide = decider.decide.bind(decider);
    decider.decide = () => {
      throw new TypeError('secret cause');
    };
    const answer = await post(urlOf(entry), COMPLETIONS, completion());
    decider.decide = decide;
    expect(answer.status).toBe(500);
    expect(answer.body).not.toContain('secret');
    expect(entry.context.inFlight).toBe(0);
    expect((await post(urlOf(entry), COMPLETIONS, completion())).status).toBe(200);
  });

  test('a hop for an instance that is not here is refused with a mark, and never routed on', async () => {
    const hop = signHop({ instance: 'elsewhere', entry: 'x', epoch: 1, seq: 0, watched: true }, TOKEN);
    const answer = await post(urlOf(door), COMPLETIONS, completion(), { 'x-lodestar-hop': hop });
    expect(answer.status).toBe(503);
    expect(answer.headers['x-lodestar-failure']).toBe('unknown-instance');
  });

  test('an entry that was sent to the wrong door tries elsewhere', async () => {
    const { instances } = entry.context;
    instances.applyReport(reportOf('ghost', { doorUrl: urlOf(door), models: [MODEL], incarnation: 1e13 }));
    const ghost = instances.views.get('ghost')!;
    for (let i = 0; i < 6; i++) {
      ghost.describesMs = fleet.clock.nowMs();
      const answer = await post(urlOf(entry), COMPLETIONS, completion());
      expect(answer.status).toBe(200);
      expect(answer.headers['x-lodestar-instance']).not.toBe('ghost');
    }
    expect(ghost.nextSeq).toBeGreaterThan(0);
    expect(ghost.reservations).toEqual([]);
    instances.remove('ghost');
  });

  test('a forged hop is a client\'s request like any other', async () => {
    for (const hop of [signHop({ instance: instanceOf(entry), entry: 'x', epoch: 1, seq: 0, watched: true }, 'another token of 20'), 'junk', '']) {
      const answer = await post(urlOf(entry), COMPLETIONS, completion(), { 'x-lodestar-hop': hop });
      expect(answer.status).toBe(200);
      expect(answer.headers['x-lodestar-instance']).toBeDefined();
      expect(answer.headers['x-lodestar-report']).toBeUndefined();
    }
  });
});

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
    'x-request-id': 'r-1', 'x-lodestar-hop': 'forged', 'x-lodestar-report': 'forged', 'x-lodestar-failure': 'forged', connection: 'close, x-gone', te: 'trailers', authorization: 'Bearer of-client', 'accept-language': 'de',
  };

  test.each([['by function call', () => agent], ['over a hop', () => outer]])('%s: the body as it came, headers without ours and the connection\'s, the engine\'s key', async (_name, entryOf) => {
    stub.requests.length = 0;
    const body = '{"model": "stub-model",\n "prompt":"x", "big": 12345678901234567890, "vllm_xargs":{"a":1}}';
    expect((await call(urlOf(entryOf()), `${COMPLETIONS}?q=%20a`, { body, headers })).status).toBe(200);
    expect(stub.requests).toHaveLength(1);
    const [seen] = stub.requests;
    expect(seen).toMatchObject({ method: 'POST', path: `${COMPLETIONS}?q=%20a`, body });
    expect(seen?.headers).toMatchObject({ 'x-request-id': 'r-1', 'accept-language': 'de', authorization: 'Bearer engine-key' });
    for (const name of Object.keys(seen?.headers ?? {})) expect(name.startsWith('x-lodestar')).toBe(false);
    expect(seen?.headers['te']).toBeUndefined();
    expect(seen?.headers['content-length']).toBe(String(Buffer.byteLength(body)));
  });

  test('headers of the answer pass, without ours: an engine cannot speak for a door', async () => {
    stub.answer = (_request, response) => response.writeHead(418, { 'x-request-id': 'r-2', 'x-lodestar-report': 'AAAA', 'set-cookie': ['a=1', 'b=2'] }).end('teapot');
    const answer = await post(urlOf(outer), '/v1/anything', {});
    expect(answer).toMatchObject({ status: 418, body: 'teapot' });
    expect(answer.headers).toMatchObject({ 'x-request-id': 'r-2', 'set-cookie': ['a=1', 'b=2'] });
    expect(answer.headers['x-lodestar-report']).toBeUndefined();
  });

  describe('the usage chunk that ends a stream', () => {
    const usage = 'data: {"choices":[],"usage":{"prompt_tokens":100,"completion_tokens":1}}\n\n';
    const token = 'data: {"choices":[{"text":"x"}]}\n\n';
    const done = 'data: [DONE]\n\n';
    const ask = (options: object = {}) => post(urlOf(outer), COMPLETIONS, { model: 'stub-model', prompt: 'x'.repeat(900), stream: true, ...options });
    const door = () => agent.context.instances.views.get(instanceOf(agent))!.local!;
    const begin = (forced: boolean): void => {
      door().usageForced = undefined;
      stub.requests.length = 0;
      stub.answer = ({ body }, response) => {
        const asked = (JSON.parse(body) as { stream_options?: { include_usage?: boolean } }).stream_options?.include_usage === true;
        response.writeHead(200, { 'content-type': 'text/event-stream' }).end(`${token}${asked || forced ? usage : ''}${done}`);
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
      for (const options of [undefined, null, {}, { include_usage: false }, undefined]) expect((await ask({ stream_options: options })).body).toBe(token + usage + done);
      begin(false);
      await ask();
      stub.answer = (_request, response) => response.writeHead(200, { 'content-type': 'text/event-stream' }).end(token + usage + done);
      for (const value of [true, 1, 'true', 'Yes']) expect((await ask({ stream_options: { include_usage: value } })).body).toBe(token + usage + done);
    });
  });

  test('a prompt that the engine refused is not believed cached, neither at its door nor at its entry', async () => {
    stub.answer = (_request, response) => response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":{"message":"too long"}}');
    const prompt = 'never computed '.repeat(100);
    // The entry knows of the door's cache only what it has sent itself: there is no brain.
    const known = () => ({ expected: outer.context.instances.views.get(instanceOf(agent))!.expected.size, door: agent.context.instances.index.blocksOf(instanceOf(agent)) });
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

  test.each(['/tokenize', '/detokenize', '/v1/messages/count_tokens'])('%s goes to an engine, which computes nothing for it', async (path) => {
    stub.answer = (_request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{"count":2}');
    const blocks = (): number => outer.context.instances.index.blocksOf(instanceOf(agent));
    await fleet.advance(100);
    const before = blocks();
    const prompt = `${path} never computed `.repeat(100);
    for (const entry of [agent, outer]) {
      expect(await post(urlOf(entry), path, { model: 'stub-model', prompt })).toMatchObject({ status: 200, body: '{"count":2}', headers: { 'x-lodestar-instance': instanceOf(agent) } });
    }
    await fleet.advance(100);
    expect(blocks()).toBe(before);
  });

  describe('a stream of named events', () => {
    const event = (name: string, rest: object = {}): string => `event: ${name}\ndata: ${JSON.stringify({ type: name, ...rest })}\n\n`;
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
      expect(answer.body).toBe(`${text}event: error\ndata: {"type":"error","error":{"type":"api_error","message":"The instance broke off in the middle of its answer."}}\n\n`);
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
    expect(await post(urlOf(outer), COMPLETIONS, { prompt: 'silent', stream: true }, within)).toMatchObject({ status: 504 });
    expect(await post(urlOf(outer), COMPLETIONS, { prompt: 'x' }, { 'x-request-timeout-ms': 'soon' })).toMatchObject({ status: 400 });
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
