import { Agent } from 'undici';
import { describe, expect, it } from 'vitest';
import { VllmHealthCollector } from '../../../agent/door/collectors/vllm-health.ts';
import { VllmMetricsCollector } from '../../../agent/door/collectors/vllm-metrics.ts';
import { realClock, silentLog } from '../../../shared/env.ts';
import { send } from '../../helpers/http.ts';
import { ADAPTER, door, FAR_LOAD, NEAR_MODEL, NEAR_SEQUENCES, type Node, type RealFleet, view } from '../real-fleet.ts';
import { isIdle, MODEL, scrape } from '../scrape.ts';
import { openStream, type OpenStream } from '../streams.ts';
import { until } from '../until.ts';
import { kvTokens } from '../workload.ts';

const PROMPT_TOKENS = 200;
/** Steps of 20 ms: long enough that nothing ends while it is looked at. */
const LONG_ANSWER = 1500;
const LOOKS = 10;
const BLOCK_TOKENS = 16;

/** What the collectors read of a real vLLM, and what the door's own ledger says of the same moment. */
export function collectorTests(fleet: () => RealFleet): void {
  const env = { clock: realClock, log: silentLog };

  it('health, version and models: names, an adapter with its base model, context length', async () => {
    const dispatcher = new Agent();
    const collector = new VllmHealthCollector({
      url: fleet().near.server.url,
      periodMs: 250,
      timeoutMs: 3000,
      dispatcher,
      env,
    });
    await collector.checkNow();
    expect(collector.status()).toMatchObject({ ok: true, error: undefined });
    expect(collector.state).toEqual({
      health: 'up',
      version: expect.stringMatching(/^\d+\.\d+/) as string,
      models: [
        { id: MODEL, maxModelLen: 2048, parent: undefined },
        { id: NEAR_MODEL, maxModelLen: 2048, parent: undefined },
        { id: ADAPTER, maxModelLen: undefined, parent: MODEL },
      ],
    });
    await dispatcher.close();
  });

  it('metrics: the size of the cache, and counters that grow by what is sent', async () => {
    await fleet().rest();
    const { url } = fleet().near.server;
    const dispatcher = new Agent();
    const collector = new VllmMetricsCollector({ url, periodMs: 1000, dispatcher, env });
    await collector.readNow();
    const before = collector.latest()!.value;
    expect(collector.status()).toMatchObject({ ok: true, error: undefined });
    expect(before).toMatchObject({
      blockSize: BLOCK_TOKENS,
      numGpuBlocks: 399,
      kvTokens: 399 * BLOCK_TOKENS,
      running: 0,
      waiting: 0,
      kvUsageRatio: 0,
      sleeping: false,
      preemptions: 0,
    });
    expect(before.processStartS).toBeGreaterThan(1.7e9);
    expect([...before.engines.keys()]).toEqual(['0']);

    const grownBy = (name: 'generationTokens' | 'promptTokens' | 'prefixQueries' | 'prefixHits'): number =>
      (collector.latest()!.value[name] ?? NaN) - (before[name] ?? NaN);
    const prompt = Array.from({ length: 40 }, (_, at) => 10 + at);
    for (let i = 0; i < 2; i++)
      await send(`${url}/v1/completions`, {
        body: JSON.stringify({ model: NEAR_MODEL, prompt, max_tokens: 3, ignore_eos: true }),
      });
    await until('the counters have grown', async () => {
      await collector.readNow();
      return grownBy('generationTokens') === 6 && grownBy('promptTokens') === 80;
    });
    const after = collector.latest()!.value;
    expect(grownBy('prefixQueries')).toBe(80);
    expect(grownBy('prefixHits')).toBe(32);
    expect(after.engineStartKey).toBe(before.engineStartKey);
    await dispatcher.close();
  });

  it('an agent’s status: its vLLM collectors work, capacity and context length are the server’s', async () => {
    for (const [name, kv, length] of [
      ['near', 399 * BLOCK_TOKENS, 2048],
      ['far', kvTokens(FAR_LOAD), kvTokens(FAR_LOAD)],
    ] as const) {
      const read = async () => {
        const answer = await send(`${fleet()[name].url}/lodestar/status`);
        const status = JSON.parse(answer.body) as {
          collectors: { name: string; ok: boolean }[];
          instances: { instance: string; engine: { running: number; kvUsageRatio: number } | null }[];
        };
        return { ...status, own: status.instances.find((one) => one.instance === name) };
      };
      // The gauges may still be those of the test before.
      await until('the gauges are those of an idle engine', async () => {
        const { own } = await read();
        return own?.engine?.running === 0 && own.engine.kvUsageRatio === 0;
      });
      const { collectors, own } = await read();
      expect(collectors.filter((one) => one.name.startsWith('vllm')).map((one) => one.ok)).toEqual([true, true]);
      expect(own).toMatchObject({
        health: 'up',
        local: true,
        limits: { kvTokens: kv, blockTokens: BLOCK_TOKENS, maxModelLen: length },
        engine: { running: 0, waiting: 0, kvUsageRatio: 0 },
      });
    }
  });

  it('every agent lists the models of the fleet, adapters too', async () => {
    for (const { url } of [fleet().near, fleet().far]) {
      const { data } = JSON.parse((await send(`${url}/v1/models`)).body) as {
        data: { id: string; max_model_len: number }[];
      };
      expect(data.map((one) => one.id).toSorted()).toEqual([ADAPTER, MODEL, NEAR_MODEL].toSorted());
      expect(data.find((one) => one.id === MODEL)?.max_model_len).toBe(kvTokens(FAR_LOAD));
    }
  });

  ledgerTests(fleet);
}

function ledgerTests(fleet: () => RealFleet): void {
  describe('the door’s ledger and vLLM’s gauges', () => {
    it('agree at rest', async () => {
      await fleet().rest();
      for (const node of [fleet().near, fleet().far]) {
        expect(door(node).ledger.totals()).toMatchObject({
          inFlight: 0,
          waiting: 0,
          prefilling: 0,
          decoding: 0,
          pendingTokens: 0,
          usedTokens: 0,
        });
        expect(await scrape(node.server.url)).toMatchObject({ running: 0, waiting: 0, kvUsageRatio: 0 });
      }
    });

    it('agree within a step while four run and three wait, and when one of the four leaves', async () => {
      const { near, far } = fleet();
      await fleet().rest();
      const streams: OpenStream[] = [];
      for (let i = 0; i < NEAR_SEQUENCES + 3; i++) streams.push(openStream((i % 2 ? near : far).url, longRequest(i)));
      try {
        await steady(near, { running: NEAR_SEQUENCES, waiting: 3 });
        streams[0]!.abort();
        await steady(near, { running: NEAR_SEQUENCES, waiting: 2 });
        for (const stream of streams.slice(0, 3)) stream.abort();
        await steady(near, { running: NEAR_SEQUENCES, waiting: 0 });
        // Neither entry believes more of it to be in flight than the door does.
        for (const by of [near, far])
          await until('the entries agree', () => view(by, near).report?.ledger.inFlight === NEAR_SEQUENCES);
      } finally {
        for (const stream of streams) stream.abort();
      }
      // A client that goes away takes its request out of vLLM, running or waiting, whichever agent it asked.
      await until('vLLM has dropped them', async () => isIdle(await scrape(near.server.url)));
      await fleet().rest();
    });
  });
}

function longRequest(index: number): object {
  const prompt = Array.from({ length: PROMPT_TOKENS }, (_, at) => 4 + ((index * 31 + at * (index + 3)) % 250));
  return { model: NEAR_MODEL, prompt, max_tokens: LONG_ANSWER, ignore_eos: true, stream: true };
}

/** Waits until vLLM runs and has waiting so many, then compares the door's account with several looks at vLLM. */
async function steady(node: Node, { running, waiting }: { running: number; waiting: number }): Promise<void> {
  const { ledger } = door(node);
  const settled = async (): Promise<boolean> => {
    const gauges = await scrape(node.server.url);
    const totals = ledger.totals();
    return (
      gauges.running === running &&
      gauges.waiting === waiting &&
      totals.waiting === waiting &&
      totals.decoding === running
    );
  };
  await until(`vLLM and the ledger have ${running} running and ${waiting} waiting`, settled);
  const { kvTokens: capacity } = await scrape(node.server.url);
  // Blocks are whole in vLLM's count, and its gauges are a step old: a sequence may have begun a block or not.
  const slack = running * (BLOCK_TOKENS + 1);
  for (let look = 0; look < LOOKS; look++) {
    const before = ledger.totals();
    const gauges = await scrape(node.server.url);
    const after = ledger.totals();
    expect(after).toMatchObject({ inFlight: running + waiting, waiting, prefilling: 0, decoding: running });
    expect(gauges).toMatchObject({ running, waiting });
    const used = (gauges.kvUsageRatio ?? NaN) * (capacity ?? NaN);
    expect(used).toBeGreaterThanOrEqual(before.usedTokens - slack);
    expect(used).toBeLessThanOrEqual(after.usedTokens + slack);
  }
}
