import { request as httpRequest } from 'node:http';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { signHop } from '../../agent/wire/hop.ts';
import type { RunningAgent } from '../../agent/main.ts';
import type { RunningEmulator } from '../../sim/engine/server.ts';
import { MODEL, TOKEN } from '../helpers/fleet.ts';
import { type HttpAnswer, type HttpOptions, send } from '../helpers/http.ts';
import { CHAT, completion, COMPLETIONS, instanceOf, ledgerOf, LinkedFleet, urlOf } from '../helpers/linked-fleet.ts';
import { reportOf } from '../helpers/reports.ts';

let fleet: LinkedFleet;
const call = (base: string, path: string, options: HttpOptions = {}): Promise<HttpAnswer> =>
  fleet.call(base + path, options);
const post = (base: string, path: string, body: object, headers: Record<string, string> = {}): Promise<HttpAnswer> =>
  call(base, path, { body: JSON.stringify(body), headers });
const errorOf = (answer: HttpAnswer) =>
  (JSON.parse(answer.body) as { error: { message: string; type: string; param: string | null; code: number } }).error;

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
  const comparable = (text: string): string =>
    text
      .replaceAll(/"(id|created|system_fingerprint)":("[^"]*"|\d+|null)/g, '"$1":0')
      .replaceAll(/"metrics":\{[^}]*\}/g, '"metrics":0');

  test.each([
    ['a chat', CHAT, { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 7 }],
    ['a completion', COMPLETIONS, completion()],
    [
      'a batch of token ids, twice each',
      COMPLETIONS,
      completion({
        prompt: [
          [1, 2, 3],
          [4, 5],
        ],
        n: 2,
      }),
    ],
    [
      'a chat, streamed',
      CHAT,
      { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 7, stream: true },
    ],
    [
      'a completion, streamed with usage',
      COMPLETIONS,
      completion({ stream: true, stream_options: { include_usage: true } }),
    ],
    [
      'a completion, streamed with running usage',
      COMPLETIONS,
      completion({ stream: true, stream_options: { include_usage: true, continuous_usage_stats: true } }),
    ],
    ['an error of the engine', COMPLETIONS, completion({ max_tokens: 1_000_000 })],
  ])('%s through its door and over a hop is what the engine says', async (_name, path, body) => {
    const direct = await post(near.url, path, body);
    const through = new Set<string | undefined>();
    for (let i = 0; i < 2; i++) {
      const answer = await post(urlOf(entry), path, body);
      expect(answer.status).toBe(direct.status);
      expect(answer.headers['content-type']).toBe(direct.headers['content-type']);
      expect(comparable(answer.body)).toBe(comparable(direct.body));
      for (const name of Object.keys(answer.headers))
        if (name.startsWith('x-lodestar')) expect(name).toBe('x-lodestar-instance');
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
    const stream = await fleet.during(
      client.chat.completions.create({ model: MODEL, messages, max_tokens: 8, stream: true }),
    );
    const collect = async (): Promise<string> => {
      let all = '';
      for await (const chunk of stream) all += chunk.choices[0]?.delta.content ?? '';
      return all;
    };
    expect(await fleet.during(collect())).toBe(chat.choices[0]?.message.content);
    await expect(fleet.during(client.chat.completions.create({ model: 'nope', messages }))).rejects.toThrow(
      '404 The model `nope` does not exist.',
    );
  });

  describe("bad requests, in vLLM's shape", () => {
    test.each([
      ['not JSON', '{"model":', 400, 'Bad Request', null],
      ['no object', '[1]', 400, 'Bad Request', 'body'],
      ['an unknown model', '{"model":"nope","prompt":"x"}', 404, 'NotFoundError', 'model'],
      [
        'a model that is named like a property of every object',
        '{"model":"constructor","prompt":"x"}',
        404,
        'NotFoundError',
        'model',
      ],
      ['too large', JSON.stringify({ prompt: 'x'.repeat(30_000) }), 413, 'RequestEntityTooLarge', null],
      [
        'nested too deeply',
        `{"messages":[],"tools":${'['.repeat(9000)}${']'.repeat(9000)}}`,
        400,
        'Bad Request',
        'body.messages',
      ],
    ])('%s', async (_name, body, status, type, param) => {
      const answer = await call(urlOf(entry), CHAT, { body });
      expect(answer.status).toBe(status);
      expect(errorOf(answer)).toMatchObject({ type, param, code: status });
      expect(answer.body).not.toMatch(/\.ts|\bat |node_modules|stack/);
    });

    test('a body of unknown length over the limit', async () => {
      const answer = await call(urlOf(entry), CHAT, {
        body: JSON.stringify({ prompt: 'x'.repeat(30_000) }),
        headers: { 'transfer-encoding': 'chunked' },
      });
      expect(answer.status).toBe(413);
    });
  });

  test.each([
    '/v1/load_lora_adapter',
    '/v1/unload_lora_adapter',
    '/v1/load_lora_adapter/',
    '/v1/load_lora_adapter?x=1',
    '/v1/load%5Flora_adapter',
    '/v1/%6Coad_lora_adapter',
    '/%76%31/load_lora_adapter',
    '/v1/%6Coad_lora_adapter?x=%zz',
    '/v1/load_lora_adapter#x',
    '/v1//load_lora_adapter',
    '/v1/%2e%2e/sleep?x=%ff',
    '/v1/../reset_prefix_cache',
    '/v1/%2e%2e/sleep',
    '/v1/./sleep',
    '/reset_prefix_cache',
    '/sleep',
    '/collective_rpc',
    '/tokenize/x',
    '/x/tokenize',
    '//tokenize',
    '/v1',
    '/',
  ])('not for clients: POST %s', async (path) => {
    const answer = await call(urlOf(entry), path, { body: '{}' });
    expect(answer.status).toBe(404);
    expect(answer.headers['x-lodestar-instance']).toBeUndefined();
  });

  test.each(['/v1/%zz', '/v1/%ff', '/v1/%6Coad_lora_adapter/%zz', '/v1/x%ff?x=1'])(
    'a path that cannot be decoded: %s',
    async (path) => {
      for (const method of ['GET', 'POST']) {
        const answer = await call(urlOf(entry), path, method === 'POST' ? { body: '{}' } : {});
        expect(answer.status).toBe(400);
        expect(answer.headers['x-lodestar-instance']).toBeUndefined();
        expect(errorOf(answer)).toMatchObject({ type: 'Bad Request', code: 400 });
      }
    },
  );

  test('an administration route behind an origin in the request line is not for clients', async () => {
    const { hostname, port } = new URL(urlOf(entry));
    const status = await fleet.during(
      new Promise((resolve, reject) => {
        const request = httpRequest(
          { hostname, port, method: 'POST', path: 'http://x/v1/load_lora_adapter' },
          (answer) => resolve(answer.resume().statusCode),
        );
        request.on('error', reject).end('{}');
      }),
    );
    expect(status).toBe(404);
  });

  test("reports, receipts and cache resets need the fleet's token", async () => {
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
    for (const limit of ['0', '-1', 'x', '1e9', 'NaN', 'Infinity'])
      expect((await call(urlOf(entry), `/lodestar/receipts?limit=${limit}`, { headers })).status).toBe(200);
  });

  test('status, metrics, health and readiness', async () => {
    // The report in an answer's headers still counts its request.
    await fleet.advance(600);
    const status = JSON.parse((await call(urlOf(entry), '/lodestar/status')).body) as Record<string, unknown> & {
      instances: Record<string, unknown>[];
      routing: object;
    };
    expect(status).toMatchObject({
      agent: 'entry',
      draining: false,
      inFlight: 0,
      brain: { url: '', connected: false },
      samples: { dropped: 0 },
    });
    expect(status.routing).toMatchObject({
      policy: 'round-robin',
      reason: 'config',
      objective: 'ttft',
      tableVersion: 7,
      scorer: 'prior-only',
      localTrust: { trusted: true },
    });
    expect(status.instances).toHaveLength(2);
    for (const instance of status.instances) {
      expect(instance).toMatchObject({
        health: 'up',
        draining: false,
        breaker: 'closed',
        models: [MODEL],
        reservations: 0,
        limits: { kvTokens: 64_000 - 16, blockTokens: 16, maxModelLen: 32_768 },
      });
      expect(instance['ageMs']).toBeLessThan(2000);
      expect(instance['ledger']).toMatchObject({ inFlight: 0 });
      expect(instance['law']).toHaveProperty('c0');
    }
    expect(status['collectors']).not.toHaveLength(0);
    const metrics = await call(urlOf(entry), '/metrics');
    expect(metrics.headers['content-type']).toContain('text/plain');
    for (const name of [
      'in_flight_requests 0',
      'table_version 7',
      'learned_in_force 0',
      `attempts_total{instance="${instanceOf(door)}",status="ok",culprit="nobody"}`,
    ])
      expect(metrics.body.includes(name), name).toBe(true);
    expect((await call(urlOf(entry), '/health')).status).toBe(200);
    expect(JSON.parse((await call(urlOf(entry), '/ready')).body)).toEqual({ ready: true });
  });

  test('more requests than the entry may hold are refused at once', async () => {
    const held = Array.from({ length: 8 }, () =>
      send(urlOf(entry) + COMPLETIONS, { body: JSON.stringify(completion({ max_tokens: 200 })) }),
    );
    await fleet.until('all are held', () => entry.context.inFlight === 8);
    const answer = await post(urlOf(entry), COMPLETIONS, completion());
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(errorOf(answer).message).toContain('agent.maxInFlight');
    expect((await fleet.during(Promise.all(held))).map((one) => one.status)).toEqual(
      Array.from({ length: 8 }, () => 200),
    );
    await fleet.until(
      'all are let go',
      () => entry.context.inFlight === 0 && ledgerOf(entry).inFlight === 0 && ledgerOf(door).inFlight === 0,
    );
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

  test("a forged hop is a client's request like any other", async () => {
    for (const hop of [
      signHop({ instance: instanceOf(entry), entry: 'x', epoch: 1, seq: 0, watched: true }, 'another token of 20'),
      'junk',
      '',
    ]) {
      const answer = await post(urlOf(entry), COMPLETIONS, completion(), { 'x-lodestar-hop': hop });
      expect(answer.status).toBe(200);
      expect(answer.headers['x-lodestar-instance']).toBeDefined();
      expect(answer.headers['x-lodestar-report']).toBeUndefined();
    }
  });
});
