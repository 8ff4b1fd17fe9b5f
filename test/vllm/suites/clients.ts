import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import Anthropic, {
  BadRequestError as AnthropicBadRequest,
  NotFoundError as AnthropicNotFound,
} from '@anthropic-ai/sdk';
import OpenAI, { BadRequestError, NotFoundError } from 'openai';
import { describe, expect, it } from 'vitest';
import { parsePrometheus } from '../../../agent/door/collectors/prometheus-text.ts';
import { packageRoot } from '../../../shared/package-root.ts';
import { send } from '../../helpers/http.ts';
import { NEAR_MODEL, type RealFleet } from '../real-fleet.ts';
import { isIdle, MODEL, scrape } from '../scrape.ts';
import { modelFolder, rigPython } from '../server.ts';
import { until } from '../until.ts';

const run = promisify(execFile);
const TEXT = 'hello world this is a tiny tokenizer for router tests '.repeat(10);
const messages = [{ role: 'user' as const, content: TEXT }];

/** A stream of each surface for the same prompt, with the cached tokens that it reports. */
const SURFACES = [
  {
    path: '/v1/chat/completions',
    body: { messages, max_tokens: 4, stream_options: { include_usage: true } },
    cached: /"cached_tokens":(\d+)/,
  },
  { path: '/v1/messages', body: { messages, max_tokens: 4 }, cached: /"cache_read_input_tokens":(\d+)/ },
  { path: '/v1/responses', body: { input: TEXT, max_output_tokens: 4 }, cached: /"cached_tokens":(\d+)/ },
] as const;

/**
 * Official clients and vLLM's own load generator, through the agent that is not the door of the model that they ask
 * for.
 */
export function clientTests(fleet: () => RealFleet): void {
  describe('openai for Node', () => {
    const client = (): OpenAI => new OpenAI({ baseURL: `${fleet().far.url}/v1`, apiKey: 'none', maxRetries: 0 });

    it('models, completion, chat and response, plain and streamed, with usage', async () => {
      expect((await client().models.list()).data.map((one) => one.id)).toContain(NEAR_MODEL);
      const text = await client().completions.create({ model: NEAR_MODEL, prompt: TEXT, max_tokens: 4 });
      expect(text.usage).toMatchObject({ completion_tokens: 4 });
      const chat = await client().chat.completions.create({ model: NEAR_MODEL, messages, max_tokens: 6 });
      let streamed = '';
      let usage: OpenAI.CompletionUsage | null | undefined;
      for await (const chunk of await client().chat.completions.create({
        model: NEAR_MODEL,
        messages,
        max_tokens: 6,
        stream: true,
        stream_options: { include_usage: true },
      })) {
        streamed += chunk.choices[0]?.delta.content ?? '';
        usage = chunk.usage ?? usage;
      }
      expect(streamed).toBe(chat.choices[0]?.message.content);
      expect(usage).toMatchObject({ prompt_tokens: chat.usage?.prompt_tokens, completion_tokens: 6 });
      const response = await client().responses.create({ model: NEAR_MODEL, input: TEXT, max_output_tokens: 5 });
      let deltas = '';
      for await (const event of await client().responses.create({
        model: NEAR_MODEL,
        input: TEXT,
        max_output_tokens: 5,
        stream: true,
      })) {
        if (event.type === 'response.output_text.delta') deltas += event.delta;
      }
      expect(deltas).toBe(response.output_text);
    });

    it('raises what vLLM refuses as the errors that they are', async () => {
      await expect(client().completions.create({ model: 'nobody', prompt: 'x' })).rejects.toBeInstanceOf(NotFoundError);
      await expect(
        client().chat.completions.create({ model: NEAR_MODEL, messages, max_tokens: 99_999 }),
      ).rejects.toBeInstanceOf(BadRequestError);
      await expect(client().embeddings.create({ model: NEAR_MODEL, input: 'x' })).rejects.toBeInstanceOf(NotFoundError);
    });

    it('stops a stream: the request leaves vLLM', async () => {
      const { url } = fleet().near.server;
      const stream = await client().completions.create({
        model: NEAR_MODEL,
        prompt: TEXT,
        max_tokens: 1500,
        stream: true,
      });
      for await (const _ of stream) break;
      await until('vLLM has dropped it', async () => isIdle(await scrape(url)));
    });
  });

  describe('anthropic for Node', () => {
    const client = (): Anthropic => new Anthropic({ baseURL: fleet().far.url, apiKey: 'none', maxRetries: 0 });

    it('message, plain and streamed, and its count of tokens', async () => {
      const request = { model: NEAR_MODEL, max_tokens: 6, messages };
      const plain = await client().messages.create(request);
      const streamed = await client().messages.stream(request).finalMessage();
      expect(streamed.content).toEqual(plain.content);
      const { input_tokens: promptTokens } = await client().messages.countTokens({ model: NEAR_MODEL, messages });
      const { input_tokens, cache_read_input_tokens, cache_creation_input_tokens, output_tokens } = streamed.usage;
      expect(input_tokens! + cache_read_input_tokens! + cache_creation_input_tokens!).toBe(promptTokens);
      expect(output_tokens).toBe(6);
    });

    it('raises errors', async () => {
      await expect(client().messages.create({ model: 'nobody', max_tokens: 5, messages })).rejects.toBeInstanceOf(
        AnthropicNotFound,
      );
      await expect(client().messages.create({ model: NEAR_MODEL, max_tokens: 5000, messages })).rejects.toBeInstanceOf(
        AnthropicBadRequest,
      );
    });
  });

  it.each(SURFACES)('the agent reads the usage of $path', async ({ path, body, cached }) => {
    const { far } = fleet();
    const reported = async (): Promise<number> => {
      const page = parsePrometheus((await send(`${far.url}/metrics`)).body);
      return (
        page.samples.get('lodestar_agent_hit_tokens_total')?.find(({ labels }) => labels['kind'] === 'reported')
          ?.value ?? 0
      );
    };
    const ask = (): Promise<string> =>
      send(far.url + path, { body: JSON.stringify({ model: NEAR_MODEL, stream: true, ...body }) }).then(
        (answer) => answer.body,
      );
    await ask();
    const before = await reported();
    const tokens = Number(cached.exec(await ask())?.[1]);
    expect(tokens).toBeGreaterThan(100);
    await until('the agent has booked it', async () => (await reported()) === before + tokens);
  });

  it('openai and anthropic for Python', async () => {
    const { stdout } = await run(rigPython, [join(packageRoot, 'test/vllm/clients.py'), fleet().far.url, NEAR_MODEL]);
    const seen = JSON.parse(stdout) as Record<string, unknown>;
    expect(seen).toMatchObject({
      models: true,
      completion: { tokens: 4 },
      notFound: 'NotFoundError',
      tooLong: 'BadRequestError',
      anthropicNotFound: 'NotFoundError',
    });
    for (const kind of ['chat', 'message', 'response'])
      expect(seen[kind], kind).toMatchObject({ tokens: 6, sameStreamed: true });
  });

  it('vllm bench serve: every request succeeds', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'lodestar-bench-serve-'));
    try {
      const options = {
        'base-url': fleet().far.url,
        model: MODEL,
        tokenizer: modelFolder(),
        'dataset-name': 'random',
        'random-input-len': '100',
        'random-output-len': '8',
        'num-prompts': '40',
        'max-concurrency': '16',
        'result-dir': folder,
        'result-filename': 'result.json',
      };
      const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
      const env = {
        ...process.env,
        HF_HUB_OFFLINE: '1',
        VLLM_TARGET_DEVICE: 'cpu',
        VLLM_NO_USAGE_STATS: '1',
        PYTHONDONTWRITEBYTECODE: '1',
      };
      await run(
        rigPython,
        [
          '-m',
          'vllm.entrypoints.cli.main',
          'bench',
          'serve',
          ...flags,
          '--ignore-eos',
          '--save-result',
          '--disable-tqdm',
        ],
        { env, maxBuffer: 1 << 24 },
      );
      const result = JSON.parse(readFileSync(join(folder, 'result.json'), 'utf8')) as Record<string, unknown>;
      expect(result).toMatchObject({ completed: 40, failed: 0, total_output_tokens: 320 });
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
}
