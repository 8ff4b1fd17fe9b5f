import { readFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { startEmulator } from '../../../sim/engine/server.ts';
import { EmulatorRig } from '../../helpers/emulator-rig.ts';

const rig = new EmulatorRig();
const { fault, get, open, optionsFor, post, settle, textOf, until } = rig;

beforeEach(() => rig.start());
afterEach(() => rig.running.close());

function events(text: string): Record<string, unknown>[] {
  const lines = text.split('\n\n').filter(Boolean);
  expect(lines.pop()).toBe('data: [DONE]');
  return lines.map((line) => JSON.parse(line.slice('data: '.length)) as Record<string, unknown>);
}

describe('answers', () => {
  it('streams a completion with the fields of vLLM, in order', async () => {
    const answer = await post(
      '/v1/completions',
      { model: 'tiny', prompt: 'Hello there', max_tokens: 3, stream: true, stream_options: { include_usage: true } },
      { 'x-request-id': 'abc' },
    );
    expect(answer.headers.get('content-type')).toBe('text/event-stream; charset=utf-8');
    expect(answer.headers.get('x-emulated')).toBe('lodestar');
    const text = await textOf(answer);
    const first = text.split('\n\n')[0]!;
    const token = /"text":"([^"]*)"/.exec(first)![1]!;
    expect(first.replace(/"created":17000000\d\d,/, '"created":0,')).toBe(
      `data: {"id":"cmpl-abc","object":"text_completion","created":0,"model":"tiny","choices":[{"index":0,"text":"${token}",` +
        '"logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}',
    );
    const all = events(text);
    expect(all.length).toBe(4);
    expect(all[2]).toMatchObject({ choices: [{ finish_reason: 'length' }] });
    expect(all[3]).toMatchObject({
      choices: [],
      usage: {
        prompt_tokens: 3,
        total_tokens: 6,
        completion_tokens: 3,
        prompt_tokens_details: { cached_tokens: 0, created_cache_tokens: 0 },
      },
      metrics: { queue_time_ms: 0 },
    });
  });

  it('streams a chat: role and first content together, usage on every chunk if asked, token ids if asked', async () => {
    const answer = await post('/v1/chat/completions', {
      messages: [{ role: 'user', content: [{ type: 'text', text: 'Hello' }] }],
      max_completion_tokens: 2,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
      return_token_ids: true,
    });
    const all = events(await textOf(answer));
    expect(all.length).toBe(4);
    expect(all[0]).toMatchObject({
      object: 'chat.completion.chunk',
      choices: [{ index: 0, delta: { role: 'assistant', content: '' }, finish_reason: null }],
      usage: { completion_tokens: 0 },
      prompt_text: null,
    });
    expect(all[0]!['prompt_token_ids']).toHaveLength((all[3]!['usage'] as { prompt_tokens: number }).prompt_tokens);
    expect(all[1]).toMatchObject({
      choices: [{ delta: { content: expect.any(String) }, token_ids: [expect.any(Number)] }],
    });
    expect(all[2]).toMatchObject({
      choices: [{ finish_reason: 'length', stop_reason: null }],
      usage: { completion_tokens: 2 },
    });
  });

  it('sends headers at once and the first data only with the first token', async () => {
    const { response } = open({ prompt: 'Hello', max_tokens: 1, stream: true });
    // Sockets only: virtual time stands still.
    const message = await response;
    const chunks: string[] = [];
    message.on('data', (data: Buffer) => chunks.push(String(data)));
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(chunks).toEqual([]);
    await until(() => message.complete);
    expect(chunks.join('')).toContain('[DONE]');
    expect(rig.clock.nowMs()).toBeGreaterThan(8 + 21.68);
  });

  it('answers in one piece, several prompts and samples, equal requests equally', async () => {
    const body = { prompt: ['first prompt', 'second prompt'], n: 2, max_tokens: 4, return_token_ids: true };
    const one = (await (await post('/v1/completions', body)).json()) as {
      choices: { index: number; text: string; token_ids: number[] }[];
      usage: object;
    };
    const two = (await (await post('/v1/completions', body)).json()) as typeof one;
    expect(one.choices.map((choice) => choice.index)).toEqual([0, 1, 2, 3]);
    expect(new Set(one.choices.map((choice) => choice.text)).size).toBe(4);
    expect(one.choices[0]!.token_ids).toHaveLength(4);
    expect(one.choices.map((choice) => choice.text)).toEqual(two.choices.map((choice) => choice.text));
    expect(one.usage).toMatchObject({ prompt_tokens: 9, completion_tokens: 16 });
  });

  it('hits the cache on the next turn of a chat and says so', async () => {
    const messages = [
      { role: 'user', content: "Tell me about the polar star and about finding one's way at sea. ".repeat(20) },
    ];
    const first = (await (await post('/v1/chat/completions', { messages, max_tokens: 100 })).json()) as {
      choices: [{ message: { role: string; content: string }; finish_reason: string }];
      usage: { prompt_tokens: number };
      metrics: object;
    };
    expect(first.metrics).toMatchObject({ queue_time_ms: 0, speculative_decoding: null });
    const next = [...messages, first.choices[0].message, { role: 'user', content: 'Go on.' }];
    const second = (await (await post('/v1/chat/completions', { messages: next, max_tokens: 1 })).json()) as {
      usage: { prompt_tokens_details: { cached_tokens: number } };
    };
    const cached = second.usage.prompt_tokens_details.cached_tokens;
    expect(cached).toBeGreaterThanOrEqual(first.usage.prompt_tokens + 100 - 16 - 1);
    expect(cached % 16).toBe(0);
    const salted = (await (
      await post('/v1/chat/completions', { messages: next, max_tokens: 1, cache_salt: 'x' })
    ).json()) as typeof second;
    expect(salted.usage.prompt_tokens_details.cached_tokens).toBe(0);
    expect(await (await post('/reset_prefix_cache', '{}')).json()).toEqual({ success: true });
    const cleared = (await (
      await post('/v1/chat/completions', { messages: next, max_tokens: 1 })
    ).json()) as typeof second;
    expect(cleared.usage.prompt_tokens_details.cached_tokens).toBe(0);
  });

  it('ends a chat without a limit by itself', async () => {
    const answer = (await (
      await post('/v1/chat/completions', { messages: [{ role: 'user', content: 'Hi' }] })
    ).json()) as {
      choices: [{ finish_reason: string }];
      usage: { completion_tokens: number };
    };
    expect(answer.choices[0].finish_reason).toBe('stop');
    expect(answer.usage.completion_tokens).toBeGreaterThanOrEqual(32);
  });
});

describe('other routes', () => {
  it('has models, health, ping, version, load, tokenize and detokenize', async () => {
    expect(await (await get('/v1/models')).json()).toMatchObject({
      object: 'list',
      data: [{ id: 'tiny', max_model_len: 4096 }],
    });
    expect((await get('/health')).status).toBe(200);
    expect((await post('/ping', '{}')).status).toBe(200);
    expect(await (await get('/version')).json()).toEqual({ version: '0.29.0+lodestar-emulated' });
    expect(await (await get('/load')).json()).toEqual({ server_load: 0 });
    const tokens = (await (await post('/tokenize', { prompt: 'Hello there' })).json()) as {
      count: number;
      tokens: number[];
    };
    expect(tokens).toMatchObject({ count: 2, max_model_len: 4096, token_strs: null });
    expect(await (await post('/detokenize', { tokens: tokens.tokens })).json()).toEqual({ prompt: 'Hello there' });
    const chat = (await (await post('/tokenize', { messages: [{ role: 'user', content: 'Hi' }] })).json()) as {
      count: number;
    };
    expect(chat.count).toBeGreaterThan(5);
  });

  it('shows the series of a real vLLM: same names, types, labels and buckets', async () => {
    await post('/v1/completions', { prompt: 'Hello', max_tokens: 5 });
    const ours = seriesOf(await textOf(await get('/metrics')));
    const theirs = seriesOf(readFileSync(new URL('../../fixtures/metrics-live-dp1.txt', import.meta.url), 'utf8'));
    // Buckets of token counts depend on the context length.
    const isComparable = (line: string): boolean => !/request_.*tokens_bucket/.test(line);
    expect(ours.filter(isComparable)).toEqual(theirs.filter(isComparable));
  });

  it('counts what happened', async () => {
    const body = { prompt: 'word '.repeat(64), max_tokens: 5 };
    await post('/v1/completions', body);
    await post('/v1/completions', body);
    const text = await textOf(await get('/metrics'));
    const value = (series: string): number =>
      Number(
        text
          .split('\n')
          .find((line) => line.startsWith(`vllm:${series}`))!
          .split(' ')[1],
      );
    const prompt = value('prompt_tokens_total') / 2;
    expect(value('prefix_cache_queries_total')).toBe(prompt * 2);
    expect(value('prefix_cache_hits_total')).toBe(Math.floor((prompt - 1) / 16) * 16);
    expect(value('generation_tokens_total')).toBe(10);
    expect(value('request_success_total{engine="0",finished_reason="length"')).toBe(2);
    expect(value('inter_token_latency_seconds_count')).toBe(8);
    expect(value('e2e_request_latency_seconds_count')).toBe(2);
    expect(value('num_requests_running')).toBe(0);
    expect(text).toContain('block_size="16"');
    expect(text).toContain('num_gpu_blocks="2562"');
    expect(text).toContain('kv_cache_size_tokens="40992"');
  });
});

/** Series of an exposition without values, model and cache configuration values. */
function seriesOf(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('vllm:') || line.startsWith('# TYPE vllm:'))
    .map((line) => (line.startsWith('#') ? line : line.slice(0, line.lastIndexOf(' '))))
    .map((line) => (line.includes('cache_config_info{') ? line.replaceAll(/="[^"]*"/g, '=""') : line));
}

describe('errors', () => {
  const cases: [string, unknown, number, object][] = [
    [
      'unknown model',
      { model: 'nope', prompt: 'x' },
      404,
      { message: 'The model `nope` does not exist.', type: 'NotFoundError', param: 'model', code: 404 },
    ],
    ['not JSON', '{bad', 400, { type: 'Bad Request', code: 400 }],
    ['wrong type', { prompt: 'x', max_tokens: 'many' }, 400, { type: 'Bad Request', param: 'body.max_tokens' }],
    ['no prompt', { max_tokens: 1 }, 400, { type: 'Bad Request', param: 'body.prompt' }],
    ['too long', { prompt: 'x', max_tokens: 5000 }, 400, { type: 'BadRequestError', param: 'max_tokens' }],
    [
      'prompt too long',
      { prompt: Array.from({ length: 4096 }, () => 5) },
      400,
      { type: 'BadRequestError', param: 'input_tokens' },
    ],
    ['empty salt', { prompt: 'x', cache_salt: '' }, 400, { param: 'body.cache_salt' }],
  ];
  for (const [name, body, status, error] of cases) {
    it(`answers ${status} to: ${name}`, async () => {
      const answer = await post('/v1/completions', body);
      expect(answer.status).toBe(status);
      const text = await answer.text();
      expect(JSON.parse(text)).toMatchObject({ error });
      expect(text).not.toContain('.ts:');
    });
  }

  it('has the shapes of FastAPI for unknown paths and methods', async () => {
    const unknown = await get('/v1/nothing');
    expect([unknown.status, await unknown.json()]).toEqual([404, { detail: 'Not Found' }]);
    const method = await get('/v1/completions');
    expect([method.status, await method.json()]).toEqual([405, { detail: 'Method Not Allowed' }]);
  });

  it('takes JSON only', async () => {
    const answer = await post('/v1/completions', 'prompt=x', { 'content-type': 'application/x-www-form-urlencoded' });
    expect(answer.status).toBe(400);
  });

  it('names the port that is taken, and a KV cache that is too small', async () => {
    const port = Number(new URL(rig.running.url).port);
    await expect(startEmulator(optionsFor({ port }))).rejects.toThrow(/port .* is in use: .*--port/);
    await expect(startEmulator(optionsFor({ kvTokens: 1000 }))).rejects.toThrow(/--max-model-len 4096/);
  });
});

describe('disconnects and faults', () => {
  const endless = { prompt: 'word '.repeat(100), max_tokens: 3000 };

  it('aborts and frees at once when the client leaves, streaming or not', async () => {
    for (const stream of [true, false]) {
      const { abort } = open({ ...endless, stream });
      await until(() => rig.running.engine.gauges.running === 1);
      expect(await (await get('/load')).json()).toEqual({ server_load: 1 });
      abort();
      await until(() => rig.running.engine.inFlight === 0);
      expect(rig.running.engine.gauges).toEqual({ running: 0, waiting: 0, kvUsageRatio: 0 });
      expect(await (await get('/load')).json()).toEqual({ server_load: 0 });
    }
    expect(await textOf(await get('/metrics'))).toContain('finished_reason="abort",model_name="tiny"} 0.0');
  });

  it('slows down', async () => {
    await fault({ kind: 'slow', factor: 10 });
    const before = rig.clock.nowMs();
    await post('/v1/completions', { prompt: 'x', max_tokens: 2 });
    expect(rig.clock.nowMs() - before).toBeGreaterThan(430);
    expect(await (await fault({ kind: 'clear' })).json()).toMatchObject({ slowFactor: 1 });
  });

  it('drops the connection after n chunks', async () => {
    await fault({ kind: 'drop-after-chunks', chunks: 3 });
    const message = await settle(open({ ...endless, stream: true }).response);
    let text = '';
    message.on('data', (data: Buffer) => (text += String(data)));
    const error = await settle(new Promise<Error>((resolve) => message.once('error', resolve)));
    expect(error.message).toContain('aborted');
    expect(text.match(/data: /g)).toHaveLength(3);
    expect(rig.running.engine.inFlight).toBe(0);
  });

  it('answers 500 or 503 until cleared', async () => {
    for (const status of [500, 503]) {
      await fault({ kind: 'status', status });
      expect((await post('/v1/completions', { prompt: 'x' })).status).toBe(status);
    }
    await fault({ kind: 'clear' });
    expect((await post('/v1/completions', { prompt: 'x', max_tokens: 1 })).status).toBe(200);
  });

  it('hangs: accepts and never answers; the engine alone if asked', async () => {
    await fault({ kind: 'hang', scope: 'engine' });
    expect((await get('/health')).status).toBe(200);
    const { response } = open({ prompt: 'x', max_tokens: 1, stream: true });
    expect((await settle(response)).statusCode).toBe(200);
    await rig.clock.advanceWithIo(10_000, 500);
    expect(rig.running.engine.inFlight).toBe(1);
    await fault({ kind: 'hang' });
    let isAnswered = false;
    const held = fetch(`${rig.running.url}/health`).then(
      () => (isAnswered = true),
      () => 'reset',
    );
    await rig.clock.advanceWithIo(10_000, 100);
    expect(isAnswered).toBe(false);
    await fault({ kind: 'clear' });
    expect(await settle(held)).toBe('reset');
    await until(() => rig.running.engine.inFlight === 0);
  });

  it('ends streams like a vLLM whose engine core died, then exits', async () => {
    const message = await settle(open({ ...endless, stream: true }).response);
    let text = '';
    message.on('data', (data: Buffer) => (text += String(data)));
    await until(() => text.includes('data: '));
    await fault({ kind: 'engine-death' });
    await until(() => message.complete);
    expect(text.trimEnd().split('\n\n').slice(-2)).toEqual([
      'data: {"error":{"message":"EngineCore encountered an issue. See stack trace (above) for the root cause.",' +
        '"type":"InternalServerError","param":null,"code":500}}',
      'data: [DONE]',
    ]);
    expect((await get('/health')).status).toBe(503);
    expect((await post('/v1/completions', { prompt: 'x' })).status).toBe(500);
    await until(() => rig.exited === 1);
  });

  it('dies: connections are destroyed', async () => {
    const message = await settle(open({ ...endless, stream: true }).response);
    message.resume();
    const broken = new Promise<Error>((resolve) => message.once('error', resolve));
    await fault({ kind: 'die' });
    expect((await settle(broken)).message).toContain('aborted');
    expect(rig.exited).toBe(1);
  });

  it('refuses an unknown fault', async () => {
    expect((await fault({ kind: 'explode' })).status).toBe(400);
  });
});
