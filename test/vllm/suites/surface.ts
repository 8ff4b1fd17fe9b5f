import { describe, expect, it } from 'vitest';
import { type HttpAnswer, send } from '../../helpers/http.ts';
import { ADAPTER, NEAR_MODEL, type RealFleet } from '../real-fleet.ts';

interface Call {
  method?: string;
  path: string;
  body?: unknown;
  headers?: Record<string, string>;
  /** a status that only a working request has; others are compared, whatever they are */
  status?: number;
}

const WORDS = 'hello world this is a tiny tokenizer for router tests';
const model = NEAR_MODEL;
const messages = [
  { role: 'system', content: 'Be brief.' },
  { role: 'user', content: WORDS },
];
const short = { model, max_tokens: 5, ignore_eos: true };
const COMPLETIONS = '/v1/completions';
const CHAT = '/v1/chat/completions';

/** One request of each kind that clients send, and of each kind that they get wrong. */
const CALLS: Record<string, Call> = {
  'completion of a text': { path: COMPLETIONS, body: { ...short, prompt: WORDS }, status: 200 },
  'completion of token ids': { path: COMPLETIONS, body: { ...short, prompt: [289, 292, 286, 281] }, status: 200 },
  'completions of two texts, two answers each': {
    path: COMPLETIONS,
    body: { ...short, prompt: [WORDS, 'hello'], n: 2, temperature: 0.5 },
    status: 200,
  },
  'completion with the prompt echoed': {
    path: COMPLETIONS,
    body: { ...short, prompt: WORDS, echo: true },
    status: 200,
  },
  'completion, streamed': { path: COMPLETIONS, body: { ...short, prompt: WORDS, stream: true }, status: 200 },
  'completion, streamed with usage': {
    path: COMPLETIONS,
    body: { ...short, prompt: WORDS, stream: true, stream_options: { include_usage: true } },
    status: 200,
  },
  'completion, streamed with usage in each chunk': {
    path: COMPLETIONS,
    body: {
      ...short,
      prompt: WORDS,
      stream: true,
      stream_options: { include_usage: true, continuous_usage_stats: true },
    },
    status: 200,
  },
  'completion, streamed with token ids': {
    path: COMPLETIONS,
    body: { ...short, prompt: WORDS, stream: true, return_token_ids: true },
    status: 200,
  },
  'completion by a LoRA adapter': { path: COMPLETIONS, body: { ...short, model: ADAPTER, prompt: WORDS }, status: 200 },
  chat: { path: CHAT, body: { ...short, messages }, status: 200 },
  'chat, streamed': { path: CHAT, body: { ...short, messages, stream: true }, status: 200 },
  'chat, streamed with usage': {
    path: CHAT,
    body: { ...short, messages, stream: true, stream_options: { include_usage: true } },
    status: 200,
  },
  message: {
    path: '/v1/messages',
    body: { model, max_tokens: 5, messages: messages.slice(1), system: 'Be brief.' },
    status: 200,
  },
  'message, streamed': {
    path: '/v1/messages',
    body: { model, max_tokens: 5, messages: messages.slice(1), stream: true },
    status: 200,
  },
  'tokens of a message': {
    path: '/v1/messages/count_tokens',
    body: { model, messages: messages.slice(1) },
    status: 200,
  },
  response: { path: '/v1/responses', body: { model, max_output_tokens: 5, input: WORDS }, status: 200 },
  'response, streamed': {
    path: '/v1/responses',
    body: { model, max_output_tokens: 5, input: WORDS, stream: true },
    status: 200,
  },
  'rendered chat': { path: '/v1/chat/completions/render', body: { ...short, messages }, status: 200 },
  tokenize: { path: '/tokenize', body: { model, prompt: WORDS }, status: 200 },
  'tokenize messages': { path: '/tokenize', body: { model, messages }, status: 200 },
  detokenize: { path: '/detokenize', body: { model, tokens: [289, 292] }, status: 200 },
  'tokenize with a wrong type': { path: '/tokenize', body: { model, prompt: 7 } },
  'embedding by a model that generates': { path: '/v1/embeddings', body: { model, input: 'x' } },
  'unknown path': { path: '/v1/nothing/here', body: {} },
  'wrong method': { path: COMPLETIONS },
  'wrong method of tokenize': { path: '/tokenize' },
  'no JSON': { path: COMPLETIONS, body: '{"model":' },
  'JSON, but a list': { path: COMPLETIONS, body: '[1,2]' },
  'no body': { method: 'POST', path: COMPLETIONS, headers: { 'content-type': 'application/json' } },
  'JSON of another content type': {
    path: COMPLETIONS,
    body: { ...short, prompt: WORDS },
    headers: { 'content-type': 'text/plain' },
  },
  'JSON in a charset that is none': { path: COMPLETIONS, body: '{"model":"\ud83d' },
  'a body nested ten thousand deep': {
    path: CHAT,
    body: `{"model":"${model}","messages":[{"role":"user","content":[${'['.repeat(10_000)}${']'.repeat(10_000)}]}]}`,
  },
  'no prompt': { path: COMPLETIONS, body: short },
  'a prompt of a wrong type': { path: COMPLETIONS, body: { ...short, prompt: { text: WORDS } } },
  'max_tokens of a wrong type': { path: COMPLETIONS, body: { ...short, prompt: WORDS, max_tokens: 'many' } },
  'max_tokens below zero': { path: CHAT, body: { ...short, messages, max_tokens: -1 } },
  'a token id outside the vocabulary': { path: COMPLETIONS, body: { ...short, prompt: [99_999_999] } },
  'a prompt that is too long': {
    path: COMPLETIONS,
    body: { ...short, prompt: Array.from({ length: 3000 }, () => 289) },
  },
  'an answer that is too long': { path: CHAT, body: { ...short, messages, max_tokens: 5000 } },
  'stream_options without a stream': {
    path: CHAT,
    body: { ...short, messages, stream_options: { include_usage: true } },
  },
  'stream_options of a wrong type': { path: CHAT, body: { ...short, messages, stream: true, stream_options: 7 } },
  'message without max_tokens': { path: '/v1/messages', body: { model, messages: messages.slice(1) } },
  'message with a wrong role': {
    path: '/v1/messages',
    body: { model, max_tokens: 5, messages: [{ role: 'nobody', content: 'x' }] },
  },
  'response that nobody stored': { method: 'GET', path: '/v1/responses/resp_00' },
};

/**
 * Busy, vLLM now and then puts two tokens into one event; a pair of answers in which it did not is looked for this
 * often.
 */
const TRIES = 5;

/** Answers through an agent are those of vLLM itself, to the byte but for ids and times. */
export function surfaceTests(fleet: () => RealFleet): void {
  describe.each(['near', 'far'] as const)('answers through an agent are vLLM’s own: %s', (entry) => {
    it.each(Object.entries(CALLS))('%s', async (_, call) => {
      const { near } = fleet();
      const agent = fleet()[entry];
      // The first of equal requests fills the prefix cache.
      await ask(near.server.url, call);
      let [direct, through] = await Promise.all([ask(near.server.url, call), ask(agent.url, call)]);
      for (let tries = 1; tries < TRIES && !through.bytes.equals(direct.bytes); tries++)
        [direct, through] = [await ask(near.server.url, call), await ask(agent.url, call)];
      expect(through.text).toBe(direct.text);
      expect(through.bytes.equals(direct.bytes)).toBe(true);
      expect(through.head).toEqual(direct.head);
      if (call.status !== undefined) expect(direct.head.status).toBe(call.status);
      else expect(direct.head.status).toBeGreaterThanOrEqual(400);
    });
  });

  it('a model that nobody serves is refused as vLLM refuses it', async () => {
    const call: Call = { path: COMPLETIONS, body: { ...short, model: 'nobody', prompt: WORDS } };
    const direct = await ask(fleet().near.server.url, call);
    const through = await ask(fleet().far.url, call);
    expect(through.text).toBe(direct.text);
    expect(through.head.status).toBe(404);
  });

  it('what lies outside the fleet’s surface is not there, though vLLM has it', async () => {
    const { near } = fleet();
    for (const path of [
      '/reset_prefix_cache',
      '/sleep',
      '/v1/load_lora_adapter',
      '/server_info',
      '/invocations',
      '/ping',
      '/version',
    ]) {
      expect(await send(near.url + path, { method: 'POST', body: '{}' }), path).toMatchObject({
        status: 404,
        body: '{"detail":"Not Found"}',
      });
    }
  });
}

async function ask(
  url: string,
  { method, path, body, headers }: Call,
): Promise<{ text: string; bytes: Buffer; head: object & { status: number } }> {
  const content = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) };
  const answer = await send(url + path, { ...(method ? { method } : {}), ...content, ...(headers ? { headers } : {}) });
  expect(answer.cut).toBe(false);
  const text = normalise(answer.body);
  return { text, bytes: Buffer.from(text), head: headOf(answer) };
}

/** Without what differs between any two answers of vLLM: ids and times. */
function normalise(text: string): string {
  return text
    .replaceAll(/"(id|item_id|request_id)":"[^"]*"/g, '"$1":"*"')
    .replaceAll(/"(created|created_at)":\d+/g, '"$1":0')
    .replaceAll(
      /"(time_to_first_token_ms|generation_time_ms|queue_time_ms|mean_itl_ms|tokens_per_second)":[-\d.e]+/g,
      '"$1":0',
    );
}

/** Status and the headers that belong to the answer and not to the connection or the moment. */
function headOf({ status, headers }: HttpAnswer): object & { status: number } {
  const of = { ...headers };
  for (const name of [
    'date',
    'x-request-id',
    'x-lodestar-instance',
    'connection',
    'keep-alive',
    'transfer-encoding',
    'content-length',
  ])
    delete of[name];
  return { status, ...of };
}
