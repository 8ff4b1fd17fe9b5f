import type { ServerResponse } from 'node:http';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { realClock } from '../../../shared/env.ts';
import { quantile, runLoad, summarize, type LoadOptions, type LoadProgress } from '../../../sim/workloads/index.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';
import { answerWell, doneEvent, startServer, tokenEvent, usageEvent, type SeenRequest } from './sse-server.ts';

const patience = { timeout: 30_000, interval: 1 };
const closes: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const close of closes.splice(0)) await close();
});

async function serve(
  answer: (seen: SeenRequest, response: ServerResponse) => void,
): Promise<{ url: string; seen: SeenRequest[] }> {
  const server = await startServer(answer);
  closes.push(server.close);
  return server;
}

function options(urls: string[], arrivals: number[], more: Partial<LoadOptions> = {}): LoadOptions {
  const requests = arrivals.map((arrivalMs, at) => ({ arrivalMs, maxTokens: 3 + at, prompt: () => ` prompt ${at}` }));
  return { urls, requests, api: 'completions', model: 'm', clock: realClock, ...more };
}

describe('load generator', () => {
  it('streams with exact answer lengths, over the URLs in turn', async () => {
    const first = await serve((_, response) => answerWell(response, 3, 40));
    const second = await serve((_, response) => answerWell(response, 4, 20));
    const result = await runLoad(options([first.url, `${second.url}/`], [0, 0, 0, 0]));
    expect(result).toMatchObject({
      sent: 4,
      succeeded: 4,
      failed: 0,
      promptTokens: 400,
      completionTokens: 14,
      kvHitRatio: 0.3,
      ttftMs: { count: 4 },
      tpotMs: { count: 4 },
    });
    expect(first.seen[0]).toEqual({
      path: '/v1/completions',
      body: {
        model: 'm',
        prompt: ' prompt 0',
        max_tokens: 3,
        ignore_eos: true,
        stream: true,
        stream_options: { include_usage: true },
      },
    });
    expect(second.seen.map(({ body }) => body.max_tokens)).toEqual([4, 6]);
  });

  it('asks the chat route with one user message', async () => {
    const server = await serve((_, response) => answerWell(response, 1));
    const result = await runLoad(options([server.url], [0], { api: 'chat' }));
    expect(server.seen[0]).toMatchObject({
      path: '/v1/chat/completions',
      body: { messages: [{ role: 'user', content: ' prompt 0' }] },
    });
    expect(result).toMatchObject({ succeeded: 1, tpotMs: { count: 0 } });
    expect(result.kvHitRatio).toBeUndefined();
  });

  it('sends at the planned times without waiting for answers', async () => {
    const held: ServerResponse[] = [];
    const server = await serve((_, response) => held.push(response));
    const clock = new VirtualClock();
    const progress: LoadProgress[] = [];
    const running = runLoad(options([server.url], [0, 100, 250], { clock }), (state) => progress.push(state));
    await vi.waitFor(() => expect(held).toHaveLength(1), patience);
    clock.advance(99);
    await vi.waitFor(() => expect(held).toHaveLength(1), patience);
    clock.advance(1);
    await vi.waitFor(() => expect(held).toHaveLength(2), patience);
    clock.advance(200);
    await vi.waitFor(() => expect(held).toHaveLength(3), patience);
    for (const response of held) answerWell(response, 2);
    const result = await running;
    expect(result).toMatchObject({
      succeeded: 3,
      durationMs: 300,
      offeredRate: 12,
      achievedRate: 10,
      ttftMs: { max: 300 },
    });
    expect(progress.at(-1)).toMatchObject({ planned: 3, sent: 3, inFlight: 0, succeeded: 3 });
  });

  it('counts failures by kind', async () => {
    const answers: ((response: ServerResponse) => void)[] = [
      (response) =>
        response.writeHead(503, { 'content-type': 'application/json' }).end('{"error":{"message":"no instance"}}'),
      (response) => response.writeHead(200).end(`${tokenEvent('a')}data: {"error":{"message":"died"}}\n\n${doneEvent}`),
      (response) => response.writeHead(200).end(tokenEvent('a') + usageEvent(1, 1)),
      (response) => {
        response.writeHead(200).write(tokenEvent('a'), () => response.destroy());
      },
      (response) => response.destroy(),
      (response) => answerWell(response, 2),
    ];
    const server = await serve(({ body }, response) => answers[Number(body.max_tokens) - 3]?.(response));
    const result = await runLoad(
      options(
        [server.url],
        answers.map(() => 0),
      ),
    );
    expect(result.failures).toEqual({ 'status 503': 1, 'in-band-error': 1, cut: 2, connect: 1 });
    expect(result.examples['status 503']).toContain('no instance');
    expect(result.examples['in-band-error']).toContain('died');
    expect(result).toMatchObject({ sent: 6, succeeded: 1, failed: 5, ttftMs: { count: 1 } });
  });

  it('reports a server that is not there, and one that is too slow', async () => {
    const refused = await runLoad(options(['http://127.0.0.1:1'], [0]));
    expect(refused).toMatchObject({ succeeded: 0, failures: { connect: 1 } });
    const clock = new VirtualClock();
    const server = await serve(() => {});
    const running = runLoad(options([server.url], [0], { clock, timeoutMs: 50 }));
    await vi.waitFor(() => expect(server.seen).toHaveLength(1), patience);
    clock.advance(50);
    expect(await running).toMatchObject({ failures: { timeout: 1 } });
  });

  it('bounds what is in flight', async () => {
    const held: ServerResponse[] = [];
    const server = await serve((_, response) => held.push(response));
    const running = runLoad(options([server.url], [0, 0, 0], { maxInFlight: 2 }));
    await vi.waitFor(() => expect(held).toHaveLength(2), patience);
    for (const response of held) answerWell(response, 2);
    expect(await running).toMatchObject({ succeeded: 2, failures: { overload: 1 } });
  });

  it('stops on a signal, and the server sees its requests go', async () => {
    const stop = new AbortController();
    let gone = 0;
    const server = await serve((_, response) => {
      response.writeHead(200).write(tokenEvent('a'));
      response.on('close', () => gone++);
    });
    const clock = new VirtualClock();
    const running = runLoad(options([server.url], [0, 0, 1000], { clock, signal: stop.signal }));
    await vi.waitFor(() => expect(server.seen).toHaveLength(2), patience);
    stop.abort();
    expect(await running).toMatchObject({ sent: 2, succeeded: 0, failed: 0, aborted: 2 });
    await vi.waitFor(() => expect(gone).toBe(2), patience);
    expect(await runLoad(options([server.url], [0], { signal: stop.signal }))).toMatchObject({ sent: 0 });
  });
});

it('interpolates quantiles', () => {
  expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  expect(quantile([5], 0.99)).toBe(5);
  expect(quantile([], 0.5)).toBeNaN();
  expect(summarize([3, 1, 2])).toEqual({ count: 3, mean: 2, p50: 2, p90: 2.8, p99: 2.98, max: 3 });
  expect(summarize([])).toEqual({ count: 0 });
});
