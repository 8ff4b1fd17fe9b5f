import Anthropic, { APIError } from '@anthropic-ai/sdk';
import { request } from 'undici';
import { describe, expect, it } from 'vitest';
import { send } from '../../helpers/http.ts';
import { ADAPTER, NEAR_MODEL, type RealFleet, view } from '../real-fleet.ts';
import { MODEL } from '../scrape.ts';
import { openStream } from '../streams.ts';
import { until } from '../until.ts';

const TEXT = 'hello world this is a tiny tokenizer for router tests '.repeat(4);
const LOAD_MS = 180_000;
const body = (changes: object): object => ({ model: MODEL, prompt: TEXT, max_tokens: 8, ignore_eos: true, ...changes });

/** One vLLM is killed under load and started again. In order: each test leaves the server as the next one finds it. */
export function failureTests(fleet: () => RealFleet): void {
  describe('vLLM is killed and started again', () => {
    let incarnation = 0;

    it('clients without a byte are answered by the other one; streams that had begun end with an error event', async () => {
      const { near, far } = fleet();
      await fleet().rest();
      await fleet().choosePolicy('round-robin');
      incarnation = view(near, near).report!.incarnation;
      // Four begin on `near` and never end by themselves; what else it gets waits behind them.
      const begun = Array.from({ length: 4 }, (_, i) =>
        openStream(
          (i % 2 ? near : far).url,
          body({ model: NEAR_MODEL, max_tokens: 1500, stream: true, prompt: `${i} ${TEXT}` }),
        ),
      );
      await until('four streams have begun', () => begun.every((one) => one.text.includes('"text"')));
      const message = new Anthropic({ baseURL: far.url, apiKey: 'none', maxRetries: 0 }).messages.stream({
        model: ADAPTER,
        max_tokens: 1000,
        messages: [{ role: 'user', content: TEXT }],
      });
      const outcome = message.finalMessage().then(
        () => 'ended well',
        (error: unknown) => error,
      );
      const waiting = Array.from({ length: 12 }, (_, i) =>
        openStream((i % 2 ? near : far).url, body({ prompt: `${i} ${TEXT}`, stream: i % 3 > 0 })),
      );
      await until('some wait on the one that will die', () => (view(near, near).report?.ledger.waiting ?? 0) >= 3);

      await near.server.crash();
      for (const one of await Promise.all(begun.map((stream) => stream.answer))) {
        expect(one.status).toBe(200);
        expect(one.body).toMatch(/data: \{"error":\{[^\n]*\n\ndata: \[DONE\]\n\n$/);
      }
      for (const one of await Promise.all(waiting.map((stream) => stream.answer))) {
        expect(one).toMatchObject({ status: 200, cut: false, headers: { 'x-lodestar-instance': 'far' } });
        expect(one.body).not.toContain('"error"');
      }
      expect(await outcome).toBeInstanceOf(APIError);
    });

    it('dead: its own models are out of service, the others are served', async () => {
      const { near, far } = fleet();
      for (const by of [near, far]) {
        await until('the agent knows', () => view(by, near).report?.health === 'down');
        expect(
          (await send(`${by.url}/v1/completions`, { body: JSON.stringify(body({ model: NEAR_MODEL })) })).status,
        ).toBe(503);
        expect(await send(`${by.url}/v1/completions`, { body: JSON.stringify(body({})) })).toMatchObject({
          status: 200,
          headers: { 'x-lodestar-instance': 'far' },
        });
      }
    });

    it(
      'loading: it gets nothing until it is up, and then begins anew, with an empty cache',
      { timeout: LOAD_MS },
      async () => {
        const { near, far } = fleet();
        near.server.relaunch();
        const seen = { upMs: NaN };
        const watch = until('vLLM serves again', () => isUp(near.server.url), LOAD_MS).then(() => {
          seen.upMs = performance.now();
        });
        const isLoading = (): boolean => Number.isNaN(seen.upMs);
        let served = 0;
        while (isLoading()) {
          const answer = await send(`${(served % 2 ? near : far).url}/v1/completions`, {
            body: JSON.stringify(body({})),
          });
          expect(answer.status).toBe(200);
          if (isLoading()) expect(answer.headers['x-lodestar-instance']).toBe('far');
          served++;
        }
        await watch;
        expect(served).toBeGreaterThan(0);
        for (const by of [near, far])
          await until(
            'the agent sees a new incarnation',
            () => view(by, near).report!.incarnation > incarnation && view(by, near).report!.health === 'up',
          );
        const knownMs = performance.now() - seen.upMs;
        for (const by of [near, far]) expect(await cachedBlocks(by.url, 'near')).toBe(0);
        console.info(`restart: both agents knew of the new incarnation ${knownMs.toFixed(0)} ms after vLLM served`);
      },
    );

    it('up: it takes traffic again from every agent', async () => {
      for (const by of [fleet().near, fleet().far]) {
        await until('near answers', async () => {
          const answer = await send(`${by.url}/v1/completions`, { body: JSON.stringify(body({})) });
          return answer.status === 200 && answer.headers['x-lodestar-instance'] === 'near';
        });
        expect(
          (await send(`${by.url}/v1/completions`, { body: JSON.stringify(body({ model: NEAR_MODEL })) })).status,
        ).toBe(200);
      }
      await fleet().choosePolicy('learned');
    });
  });
}

async function cachedBlocks(url: string, instance: string): Promise<number | undefined> {
  const { instances } = JSON.parse((await send(`${url}/lodestar/status`)).body) as {
    instances: { instance: string; cachedBlocks: number }[];
  };
  return instances.find((one) => one.instance === instance)?.cachedBlocks;
}

async function isUp(url: string): Promise<boolean> {
  try {
    const { statusCode, body: answer } = await request(`${url}/health`);
    await answer.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}
