import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { Agent } from 'undici';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { readGauges } from '../../../../agent/door/collectors/vllm-gauges.ts';
import { VllmMetricsCollector } from '../../../../agent/door/collectors/vllm-metrics.ts';
import { silentLog } from '../../../../shared/env.ts';
import { packageRoot } from '../../../../shared/package-root.ts';
import { logSpy } from '../../../helpers/log-spy.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const fixture = (name: string): string => readFileSync(join(packageRoot, 'test/fixtures/vllm-metrics', name), 'utf8');

describe('gauges', () => {
  it('reads a page of one engine', () => {
    const gauges = readGauges(fixture('dp1.txt'));
    expect(gauges).toMatchObject({
      running: 0,
      waiting: 0,
      kvUsageRatio: 0,
      prefixQueries: 346,
      prefixHits: 128,
      promptTokens: 346,
      preemptions: 0,
      sleeping: false,
    });
    expect(gauges.processStartS).toBe(1.79532899219e9);
    expect(gauges.blockSize).toBe(16);
    expect(gauges.kvTokens).toBe((gauges.numGpuBlocks ?? 0) * 16);
    expect([...gauges.engines.keys()]).toEqual(['0']);
  });

  it('adds up two engines and keeps each', () => {
    const gauges = readGauges(fixture('dp2-two-api-servers.txt'));
    expect(gauges).toMatchObject({
      prefixQueries: 647,
      prefixHits: 160,
      generationTokens: 28,
      numGpuBlocks: 80,
      kvTokens: 1280,
      processStartS: undefined,
    });
    expect(gauges.engines.get('1')).toMatchObject({ prefixQueries: 277, generationTokens: 12, numGpuBlocks: 40 });
  });

  it('divides the summed block count where the tokens per rank are not told', () => {
    const text = fixture('dp2-two-api-servers.txt').replaceAll(
      'kv_cache_size_tokens="656"',
      'kv_cache_size_tokens="None"',
    );
    expect(readGauges(text)).toMatchObject({ numGpuBlocks: 80, kvTokens: 1280 });
  });

  const load = {
    running: 3,
    waiting: 2,
    kvUsageRatio: 0.25,
    promptTokens: 1200,
    generationTokens: 340,
    preemptions: 1,
    sleeping: false,
  };
  const cache = { blockSize: 16, numGpuBlocks: 2561, kvTokens: 2561 * 16 };
  const started = { processStartS: 1.73282400012e9 };
  it.each([
    // V0 has only the rate of hits, no count.
    ['v0.6.txt', { ...load, ...cache, ...started, prefixQueries: undefined, prefixHits: undefined }],
    ...['v0.7.txt', 'v0.8.txt', 'v0.10.txt', 'v0.12.txt', 'v0.15.txt', 'v0.20.txt'].map(
      (name) => [name, { ...load, ...cache, ...started, prefixQueries: 1200, prefixHits: 400 }] as const,
    ),
    [
      'rust-front-end.txt',
      {
        ...load,
        prefixQueries: 1200,
        prefixHits: 400,
        blockSize: undefined,
        numGpuBlocks: undefined,
        kvTokens: undefined,
        processStartS: undefined,
      },
    ],
  ] as const)('%s: the same figures under the names of its version', (name, expected) => {
    const gauges = readGauges(fixture(name));
    expect(gauges).toMatchObject(expected);
    expect([...gauges.engines.keys()]).toEqual(['0']);
  });

  it('reads a page of vLLM 0.29 under load', () => {
    expect(readGauges(fixture('v0.29.txt'))).toMatchObject({
      running: 3,
      waiting: 2,
      kvUsageRatio: 24 / 399,
      prefixQueries: 600,
      prefixHits: 288,
      promptTokens: 600,
      generationTokens: 58,
      preemptions: 0,
      sleeping: false,
      blockSize: 16,
      numGpuBlocks: 399,
      kvTokens: 399 * 16,
      processStartS: 1.79555048182e9,
    });
  });

  it('knows whether prefixes are kept, where the page tells', () => {
    const text = fixture('v0.29.txt');
    expect(readGauges(text)).toMatchObject({ prefixCaching: true });
    expect(readGauges(text.replace('enable_prefix_caching="True"', 'enable_prefix_caching="False"'))).toMatchObject({
      prefixCaching: false,
    });
    expect(
      readGauges(text.replace('enable_prefix_caching="True"', 'enable_prefix_caching="None"')).prefixCaching,
    ).toBeUndefined();
    expect(readGauges(fixture('rust-front-end.txt')).prefixCaching).toBeUndefined();
    expect(readGauges(fixture('dp2-two-api-servers.txt')).engines.get('1')).toMatchObject({ prefixCaching: true });
  });

  it('sees a sleeping engine', () => {
    const text = fixture('dp1.txt').replace('sleep_state="awake"} 1.0', 'sleep_state="awake"} 0.0');
    expect(readGauges(text).sleeping).toBe(true);
  });

  describe('figures that cannot be', () => {
    const text = fixture('v0.29.txt');
    const withValue = (series: string, value: string): string =>
      text.replace(new RegExp(`^(${series}\\{[^}]*\\}) .*$`, 'm'), `$1 ${value}`);
    const read = (page: string) => {
      const odd: Record<string, string> = {};
      return { gauges: readGauges(page, (name, value) => (odd[name] = value)), odd };
    };

    it.each([
      ['vllm:num_requests_running', 'running'],
      ['vllm:num_requests_waiting', 'waiting'],
      ['vllm:prompt_tokens_total', 'promptTokens'],
      ['vllm:generation_tokens_total', 'generationTokens'],
      ['vllm:num_preemptions_total', 'preemptions'],
    ] as const)('%s counts as unknown, and the rest of the page holds', (series, name) => {
      const { gauges: good } = read(text);
      for (const value of ['NaN', '-3', '+Inf', '-Inf', '1e300']) {
        const { gauges, odd } = read(withValue(series, value));
        expect({ ...gauges, engines: null }).toEqual({ ...good, [name]: undefined, engines: null });
        expect(Object.keys(odd)).toEqual([series]);
      }
    });

    it('a share of the cache is brought between 0 and 1, or is unknown', () => {
      const usage = (value: string): number | undefined =>
        read(withValue('vllm:kv_cache_usage_perc', value)).gauges.kvUsageRatio;
      expect(['-0.39', '1.7', 'NaN', '+Inf', '1.0000000002', '0.5'].map(usage)).toEqual([
        0,
        1,
        undefined,
        undefined,
        1,
        0.5,
      ]);
      expect(read(withValue('vllm:kv_cache_usage_perc', '-0.39')).odd).toEqual({ 'vllm:kv_cache_usage_perc': '-0.39' });
    });

    it.each(['-16', '0', '1e30', 'abc', '0.5', 'NaN', 'Infinity'])('a size of blocks of %s is none', (size) => {
      const { gauges, odd } = read(text.replace('block_size="16"', `block_size="${size}"`));
      expect(gauges).toMatchObject({ blockSize: undefined, kvTokens: undefined, running: 3 });
      expect(odd).toEqual({ block_size: size });
    });

    it('very many engines of one page are bounded', () => {
      const page = Array.from({ length: 5000 }, (_, i) => `vllm:num_requests_running{engine="${i}"} 1`).join('\n');
      expect(read(page).gauges.engines.size).toBe(256);
    });
  });

  it('refuses a page without vLLM series', () => {
    expect(() => readGauges('up 1\n')).toThrow('--disable-log-stats');
  });
});

describe('collector', () => {
  let server: Server;
  let page = '';
  let status = 200;
  let requests = 0;
  let answer = true;
  let url = '';
  const dispatcher = new Agent();
  beforeEach(async () => {
    [page, status, requests, answer] = [fixture('dp1.txt'), 200, 0, true];
    server = createServer((_, response) => {
      requests++;
      if (answer) response.writeHead(status).end(page);
    });
    await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  const make = (clock: VirtualClock): VllmMetricsCollector =>
    new VllmMetricsCollector({ url, periodMs: 1000, dispatcher, env: { clock, log: silentLog } });

  it('keeps one start key per incarnation', async () => {
    let collector = make(new VirtualClock());
    const key = async (text: string): Promise<string | undefined> => {
      page = text;
      await collector.readNow();
      return collector.latest()?.value.engineStartKey;
    };
    const first = await key(page);
    expect(
      await key(
        page.replace(
          'vllm:prompt_tokens_total{engine="0",model_name="tiny"} 346.0',
          'vllm:prompt_tokens_total{engine="0",model_name="tiny"} 400.0',
        ),
      ),
    ).toBe(first);
    expect(await key(page.replace('1.79532899219e+09', '1.79532899999e+09'))).not.toBe(first);

    // The start of the process tells; without it, counters that went back do.
    expect(await key(fixture('v0.29.txt'))).toBe(
      await key(page.replaceAll(/(generation_tokens_total\{[^}]*\}) \d+/g, '$1 1')),
    );
    collector = make(new VirtualClock());
    const anonymous = fixture('dp2-two-api-servers.txt');
    const before = await key(anonymous);
    expect(await key(anonymous)).toBe(before);
    expect(await key(anonymous.replaceAll(/(generation_tokens_total\{[^}]*\}) \d+/g, '$1 1'))).not.toBe(before);
  });

  it('sees no restart in figures that cannot be, and says them once', async () => {
    const spy = logSpy();
    const collector = new VllmMetricsCollector({
      url,
      periodMs: 1000,
      dispatcher,
      env: { clock: new VirtualClock(), log: spy.log },
    });
    const key = async (text: string): Promise<string | undefined> => {
      page = text;
      await collector.readNow();
      return collector.latest()?.value.engineStartKey;
    };
    const good = page;
    const odd = good.replaceAll(/^((?:vllm:prompt_tokens_total|process_start_time_seconds)\S*) .*$/gm, '$1 NaN');
    const first = await key(good);
    expect(await key(odd)).toBe(first);
    expect(collector.status()).toMatchObject({
      ok: true,
      odd: { 'vllm:prompt_tokens_total': 'NaN', process_start_time_seconds: 'NaN' },
    });
    expect(await key(odd)).toBe(first);
    expect(spy.lines.map(({ msg }) => msg)).toEqual([
      'a figure that cannot be is left out',
      'a figure that cannot be is left out',
    ]);
    expect(await key(good)).toBe(first);
    expect(collector.status()).not.toHaveProperty('odd');
  });

  it('keeps the last value through failures and recovers', async () => {
    const clock = new VirtualClock();
    const collector = make(clock);
    await collector.readNow();
    const kept = collector.latest();
    clock.advance(10);
    status = 500;
    await collector.readNow();
    expect(collector.status()).toMatchObject({ ok: false, error: expect.stringContaining('answered 500') as string });
    expect(collector.latest()).toEqual(kept);
    status = 200;
    await collector.readNow();
    expect(collector.status()).toMatchObject({ ok: true, lastOkMs: 10, error: undefined });
  });

  it('bounds the body and the wait, one request at a time', async () => {
    const clock = new VirtualClock();
    const collector = make(clock);
    page = `${page}\n${'#'.repeat(9 * 1024 * 1024)}`;
    await collector.readNow();
    expect(collector.status().error).toContain('more than 8388608 bytes');
    answer = false;
    const before = requests;
    const reading = collector.readNow();
    void collector.readNow();
    await vi.waitFor(() => expect(requests).toBe(before + 1), { timeout: 30_000, interval: 1 });
    clock.advance(1000);
    await reading;
    expect(collector.status().error).toContain('did not answer within 1000 ms');
    expect(requests).toBe(before + 1);
  });
});
