import { createServer, type IncomingHttpHeaders, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { readGauges } from '../../../agent/door/collectors/vllm-gauges.ts';
import type { VllmMetrics } from '../../../agent/door/collectors/index.ts';
import { deliver } from '../../../agent/door/deliver.ts';
import { DoorInstance, type DoorInstanceOptions } from '../../../agent/door/door-instance.ts';
import { loadConfig } from '../../../shared/config/index.ts';
import { OpenAttempts } from '../../../agent/door/open-attempts.ts';
import { silentLog } from '../../../shared/env.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const PROMPT = {
  hashes: new Float64Array(),
  end: [0, 0] as const,
  text: Buffer.alloc(0),
  model: 'm',
  cacheSalt: '',
  promptTokens: 4,
  tokensPerBlock: 16,
  exactTokens: true,
  stream: false,
  sequences: 1,
  computed: true,
};

let server: Server;
let url: string;
let seen: IncomingHttpHeaders;
const open: DoorInstance[] = [];
beforeEach(async () => {
  server = createServer((request, response) => {
    seen = request.headers;
    response.end('{}');
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(async () => {
  for (const door of open.splice(0)) await door.upstream.close();
  await new Promise((closed) => server.close(closed));
});

function doorOf(instance: object, metrics?: VllmMetrics, options: Partial<DoorInstanceOptions> = {}): DoorInstance {
  const clock = new VirtualClock();
  const [config] = loadConfig({
    env: {},
    overrides: { token: 'x'.repeat(16), agent: { id: 'a', instances: [{ url, ...instance }] } },
  }).agent.instances;
  const none = { latest: () => undefined };
  const door = new DoorInstance({
    config: config!,
    agentId: 'a',
    epoch: 1,
    doorUrl: 'http://door',
    connectTimeoutMs: 1000,
    open: new OpenAttempts(),
    limits: { suspectAfterMs: 3000, stuckAfterMs: 60_000 },
    env: { clock, rng: () => 0.5, log: silentLog },
    collectors: {
      gpu: none,
      gpuInventory: none,
      host: none,
      instances: new Map([
        [
          config!.id,
          {
            metrics: {
              latest: () => metrics && { value: metrics, atMs: clock.nowMs(), beganMs: clock.nowMs() },
              readNow: () => Promise.resolve(),
            },
            health: {
              state: { health: 'up' as const, version: '0.29', models: [] },
              heardMs: -Infinity,
              goneMs: undefined,
              noteFailure: () => undefined,
            },
          },
        ],
      ]),
    },
    ...options,
  });
  open.push(door);
  return door;
}

describe('what goes to the engine', () => {
  const headers = {
    'content-type': 'application/json',
    authorization: 'Bearer of the client',
    'x-data-parallel-rank': '7',
  };
  const send = async (instance: object): Promise<IncomingHttpHeaders> => {
    await new Promise<void>((resolve, reject) => {
      const handler = { onHeaders: () => undefined, onData: () => true, onEnd: () => resolve(), onFailure: reject };
      deliver(
        doorOf(instance),
        { method: 'POST', path: '/v1/completions', headers, body: [Buffer.from('{}')], usageSplice: undefined },
        PROMPT,
        { entry: 'e', epoch: 1, seq: 0, watched: false },
        handler,
      );
    });
    return seen;
  };

  test('has the rank of the instance, whatever the client asked for', async () => {
    expect(await send({ dataParallelRank: 0 })).toMatchObject({
      'x-data-parallel-rank': '0',
      authorization: 'Bearer of the client',
    });
    expect(await send({ dataParallelRank: 2, apiKey: 'key' })).toMatchObject({
      'x-data-parallel-rank': '2',
      authorization: 'Bearer key',
    });
  });

  test("has the client's own rank where the instance has none", async () => {
    expect(await send({})).toMatchObject({ 'x-data-parallel-rank': '7' });
  });
});

describe('figures of a rank', () => {
  const page = ([0, 1] as const)
    .map((engine) => {
      const own = `engine="${engine}",model_name="m"`;
      return `vllm:num_requests_running{${own}} ${engine + 1}\nvllm:num_requests_waiting{${own}} ${10 * engine}\nvllm:kv_cache_usage_perc{${own}} 0.${engine + 1}
vllm:cache_config_info{block_size="${16 * (engine + 1)}",enable_prefix_caching="${engine === 0 ? 'True' : 'False'}",engine="${engine}",kv_cache_size_tokens="${1616 * (engine + 1)}",num_gpu_blocks="202"} 1.0\n`;
    })
    .join('');
  const metrics: VllmMetrics = { ...readGauges(page), engineStartKey: 'k' };
  const reportOf = (instance: object) => {
    const door = doorOf(instance, metrics);
    door.refresh();
    return door.report(false);
  };

  test('are those of its engine, sizes too', () => {
    expect(reportOf({ dataParallelRank: 1 })).toMatchObject({
      instance: expect.stringMatching(/:1$/) as string,
      engine: { running: 2, waiting: 10, kvUsageRatio: 0.2 },
      limits: { kvTokens: 3200, blockTokens: 32 },
    });
    expect(reportOf({ dataParallelRank: 0 })).toMatchObject({
      engine: { running: 1, waiting: 0, kvUsageRatio: 0.1 },
      limits: { kvTokens: 1600, blockTokens: 16 },
    });
  });

  test('do not reach the view of a door whose cache size is assumed', () => {
    const cacheOf = (options: Partial<DoorInstanceOptions>) => {
      const door = doorOf({}, metrics, options);
      door.refresh();
      return { source: door.cache.figures().source, kvTokens: door.report(false).limits.kvTokens };
    };
    expect(cacheOf({})).toEqual({ source: 'shadow', kvTokens: 4800 });
    expect(cacheOf({ cacheSize: 'reported' })).toEqual({ source: 'shadow', kvTokens: 4800 });
    expect(cacheOf({ cacheSize: 'assumed' })).toEqual({ source: 'estimate', kvTokens: 4800 });
  });

  test('are the sums where no rank is set, or the page does not have it', () => {
    for (const instance of [{}, { dataParallelRank: 5 }])
      expect(reportOf(instance)).toMatchObject({ engine: { running: 3, waiting: 10 }, limits: { kvTokens: 4800 } });
  });

  test('an engine without prefix caching is believed to hold nothing, and that is said', () => {
    expect(reportOf({ dataParallelRank: 1 }).cache).toMatchObject({
      blocks: 0,
      problem: expect.stringContaining('--no-enable-prefix-caching') as string,
    });
    expect(reportOf({ dataParallelRank: 0 }).cache?.problem).toBe('');
  });
});
