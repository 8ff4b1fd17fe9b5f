import OpenAI, { NotFoundError } from 'openai';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { realClock } from '../../../shared/env.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { startEmulator, type RunningEmulator } from '../../../sim/engine/server.ts';

let running: RunningEmulator;
let client: OpenAI;

beforeAll(async () => {
  running = await startEmulator({
    clock: realClock,
    gpu: { ...findGpu(loadGpus(), 'A100'), c0: 0.5 },
    host: '127.0.0.1',
    port: 0,
    model: 'tiny',
    maxNumSeqs: 8,
    maxBatchedTokens: 2048,
    maxModelLen: 4096,
    frontEndMs: 0,
    noise: 0.02,
    seed: 1,
  });
  client = new OpenAI({ baseURL: `${running.url}/v1`, apiKey: 'none', maxRetries: 0 });
});

afterAll(() => running.close());

it('serves the official client: models, completions, chat, streams, errors', async () => {
  const models = await client.models.list();
  expect(models.data.map((model) => model.id)).toEqual(['tiny']);

  const completion = await client.completions.create({ model: 'tiny', prompt: 'Hello', max_tokens: 5 });
  expect(completion.usage?.completion_tokens).toBe(5);

  const messages = [{ role: 'user' as const, content: 'Hello' }];
  const chat = await client.chat.completions.create({ model: 'tiny', messages, max_tokens: 6 });
  const stream = await client.chat.completions.create({
    model: 'tiny',
    messages,
    max_tokens: 6,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let tokens = 0;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    tokens = chunk.usage?.completion_tokens ?? tokens;
  }
  expect(text).toBe(chat.choices[0]!.message.content);
  expect(tokens).toBe(6);

  await expect(client.completions.create({ model: 'nope', prompt: 'x' })).rejects.toThrow(NotFoundError);
});

it('aborts when the client stops reading a stream', async () => {
  const stream = await client.completions.create({ model: 'tiny', prompt: 'Hello', max_tokens: 4000, stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0]) break;
  }
  while (running.engine.inFlight > 0) await new Promise((resolve) => setImmediate(resolve));
  expect(running.engine.gauges.kvUsageRatio).toBe(0);
});
