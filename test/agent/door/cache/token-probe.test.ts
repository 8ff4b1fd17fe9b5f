import { realClock } from '../../../../shared/env.ts';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TokenProbe } from '../../../../agent/door/cache/token-probe.ts';
import { Upstream } from '../../../../agent/wire/upstream.ts';
import { StubVllm } from '../../../helpers/stub-vllm.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

let clock: VirtualClock;
let stub: StubVllm;
let upstream: Upstream;
let probe: TokenProbe;

const CHAT = {
  path: '/v1/chat/completions',
  headers: {},
  body: [
    Buffer.from('{"model":"m","messages":[{"role":"user","content":"H'),
    Buffer.from('i"}],"max_tokens":5,"stream":true,"tools":[],"chat_template_kwargs":{"a":1}}'),
  ],
};

beforeEach(async () => {
  clock = new VirtualClock();
  stub = new StubVllm('m');
  upstream = new Upstream(await stub.listen(), 1000, realClock);
  probe = new TokenProbe(upstream, clock, undefined);
  answer(200, { count: 2, tokens: [1, 2], token_strs: ['H', 'i'] });
});

afterEach(async () => {
  await upstream.close();
  await stub.close();
});

function answer(status: number, body: unknown): void {
  stub.answer = (_request, response) =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

/** Asks once more, after the longest pause. */
function askLater(): ReturnType<TokenProbe['ask']> {
  clock.advance(300_000);
  return probe.ask(CHAT);
}

test('a chat is asked for with what decides its tokens, and nothing else', async () => {
  expect(await probe.ask({ ...CHAT, headers: { authorization: 'Bearer client', 'x-other': '1' } })).toEqual({
    ids: [1, 2],
    spellings: ['H', 'i'],
  });
  const [request] = stub.requests;
  expect([request!.method, request!.path, request!.headers['authorization'], request!.headers['x-other']]).toEqual([
    'POST',
    '/tokenize',
    'Bearer client',
    undefined,
  ]);
  expect(JSON.parse(request!.body)).toEqual({
    return_token_strs: true,
    model: 'm',
    messages: [{ role: 'user', content: 'Hi' }],
    tools: [],
    chat_template_kwargs: { a: 1 },
  });
});

test('a completion is asked for by its prompt, with the instance’s own key', async () => {
  probe = new TokenProbe(upstream, clock, 'own');
  await probe.ask({
    path: '/v1/completions',
    headers: { authorization: 'Bearer client' },
    body: [Buffer.from('{"model":"m","prompt":"Hi","max_tokens":5}')],
  });
  expect(JSON.parse(stub.requests[0]!.body)).toEqual({ return_token_strs: true, model: 'm', prompt: 'Hi' });
  expect(stub.requests[0]!.headers['authorization']).toBe('Bearer own');
});

test('what has no text of one prompt is not asked for', async () => {
  for (const [path, body] of [
    ['/v1/completions', { prompt: [1, 2] }],
    ['/v1/completions', { prompt: ['a', 'b'] }],
    ['/v1/chat/completions', { prompt: 'a' }],
    ['/v1/embeddings', { input: 'a' }],
  ] as const) {
    expect(await probe.ask({ path, headers: {}, body: [Buffer.from(JSON.stringify(body))] })).toBeUndefined();
  }
  expect(await probe.ask({ ...CHAT, body: [Buffer.alloc(256 * 1024, 32), Buffer.alloc(1, 32)] })).toBeUndefined();
  expect([stub.requests.length, probe.isReady, probe.problem]).toEqual([0, true, '']);
});

test('there is one question at a time, with a pause behind it', async () => {
  const first = probe.ask(CHAT);
  clock.advance(600);
  expect(probe.isReady).toBe(false);
  expect(await probe.ask(CHAT)).toBeUndefined();
  await first;
  expect(probe.isReady).toBe(true);
  await probe.ask(CHAT);
  clock.advance(499);
  expect(await probe.ask(CHAT)).toBeUndefined();
  clock.advance(1);
  expect(await probe.ask(CHAT)).toBeDefined();
  expect(stub.requests.length).toBe(3);
});

test('an engine without the route is asked five times, then no more until it is another', async () => {
  answer(404, { detail: 'Not Found' });
  for (let n = 0; n < 8; n++) {
    expect(probe.problem).toBe(n < 5 ? '' : 'token counts stay estimates: POST /tokenize answered 404');
    expect(await askLater()).toBeUndefined();
  }
  expect([stub.requests.length, probe.isReady]).toEqual([5, false]);
  probe.reset();
  answer(200, { tokens: [1], token_strs: ['H'] });
  expect([await askLater(), probe.problem]).toEqual([{ ids: [1], spellings: ['H'] }, '']);
});

test('an answer makes up for failures; one without spellings, or with too few, is a failure', async () => {
  for (const bad of [
    { tokens: [1, 2] },
    { tokens: [1, 2], token_strs: ['H'] },
    { tokens: [-1], token_strs: ['H'] },
    { tokens: [1], token_strs: [7] },
  ]) {
    answer(200, bad);
    expect(await askLater()).toBeUndefined();
  }
  answer(200, { tokens: [], token_strs: [] });
  expect(await askLater()).toEqual({ ids: [], spellings: [] });
  answer(500, {});
  for (let n = 0; n < 4; n++) await askLater();
  expect(probe.problem).toBe('');
  await askLater();
  expect(probe.problem).toMatch(/answered 500/);
});

test.each([
  [{ tokens: [1], token_strs: null }, 'POST /tokenize answered no texts of tokens (token_strs)'],
  [{ count: 1 }, 'POST /tokenize answered no tokens'],
  ['text', 'POST /tokenize answered no tokens'],
  [null, 'POST /tokenize answered no tokens'],
])('what is wrong with an answer is said in words: %j', async (body, problem) => {
  answer(200, body);
  for (let n = 0; n < 5; n++) await askLater();
  expect(probe.problem).toBe(`token counts stay estimates: ${problem}`);
});

test('an engine that fails is asked ever less often, and never given up', async () => {
  answer(500, {});
  await probe.ask(CHAT);
  let asked = 1;
  for (let second = 0; second < 3600; second++) {
    clock.advance(1000);
    if (probe.isReady) asked += 1;
    await probe.ask(CHAT);
  }
  expect(stub.requests.length).toBe(asked);
  expect(asked).toBeGreaterThan(12);
  expect(asked).toBeLessThan(25);
  answer(200, { tokens: [1], token_strs: ['H'] });
  expect([await askLater(), probe.problem]).toEqual([{ ids: [1], spellings: ['H'] }, '']);
});

test('routes that come and go are no proof that there is none', async () => {
  for (let n = 0; n < 12; n++) {
    answer(n % 4 === 3 ? 503 : 404, {});
    await askLater();
  }
  expect(stub.requests.length).toBe(12);
  clock.advance(300_000);
  expect(probe.isReady).toBe(true);
});

test('a long answer is looked at in turns of the event loop', async () => {
  const tokens = Array.from({ length: 40_000 }, (_, i) => i);
  answer(200, { tokens, token_strs: tokens.map(() => 'ab') });
  let turns = 0;
  const state = { over: false };
  const count = (): void => {
    turns += 1;
    if (!state.over) setImmediate(count);
  };
  setImmediate(count);
  expect((await probe.ask(CHAT))?.ids).toEqual(tokens);
  state.over = true;
  expect(turns).toBeGreaterThan(9);
});

test('an engine that does not answer is not waited for', async () => {
  const asked = new Promise<void>((resolve) => (stub.answer = () => resolve()));
  const question = probe.ask(CHAT);
  await asked;
  clock.advance(4999);
  expect(probe.isReady).toBe(false);
  clock.advance(1);
  expect(await question).toBeUndefined();
  expect(probe.isReady).toBe(false);
  clock.advance(1000);
  expect(probe.isReady).toBe(true);
});
