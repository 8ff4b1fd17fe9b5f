import { afterEach, beforeEach, expect, test } from 'vitest';
import { Dealer, Subscriber } from 'zeromq';
import { decodeBatch } from '../../../agent/door/kv-events/decode.ts';
import type { BlocksStored, KvEvent } from '../../../agent/door/kv-events/kv-event.ts';
import { KvPublisher } from '../../../sim/engine/kv-publisher.ts';
import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { startEmulator, type EmulatorOptions, type RunningEmulator } from '../../../sim/engine/server.ts';
import { KvRig } from '../../helpers/kv-events.ts';

let rig: KvRig;

beforeEach(() => {
  rig = new KvRig();
});

afterEach(() => rig.close());

const emulator = async (options: Partial<EmulatorOptions> = {}): Promise<RunningEmulator> => {
  const running = await startEmulator({
    clock: rig.clock,
    gpu: findGpu(loadGpus(), 'A30'),
    host: '127.0.0.1',
    port: 0,
    model: 'tiny',
    kvTokens: 2048 + 16,
    maxNumSeqs: 16,
    maxBatchedTokens: 2048,
    maxModelLen: 2048,
    frontEndMs: 0,
    noise: 0,
    seed: 1,
    kvEventsPort: 0,
    kvReplayPort: 0,
    ...options,
  });
  rig.onClose(() => running.close());
  return running;
};

async function post(running: RunningEmulator, path: string, body: unknown = {}): Promise<number> {
  const answers: number[] = [];
  void fetch(running.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  }).then(async (response) => {
    await response.text();
    answers.push(response.status);
  });
  while (answers.length === 0) await rig.clock.advanceWithIo(5);
  return answers[0] as number;
}

/**
 * What the engine's pool must hold if the events are right: the hashes of every copy, by the rules of vllm.md for a
 * subscriber.
 */
class Mirror {
  readonly copies = new Map<number, number>();
  readonly everStored = new Set<number>();

  apply(events: readonly KvEvent[]): void {
    for (const event of events) {
      if (event.type === 'cleared') this.copies.clear();
      else for (const hash of event.hashes) this.add(hash, event.type === 'stored' ? 1 : -1);
    }
  }

  private add(hash: number, copies: number): void {
    this.everStored.add(hash);
    const left = (this.copies.get(hash) ?? 0) + copies;
    if (left < 0) throw new Error('removed what was not stored');
    if (left === 0) this.copies.delete(hash);
    else this.copies.set(hash, left);
  }
}

test('an emulated engine tells all that happens to its cache: a subscriber that applies it knows what the pool holds', async () => {
  const running = await emulator();
  const mirror = new Mirror();
  const sink = {
    begin: (): void => mirror.copies.clear(),
    apply: (events: readonly KvEvent[]) => mirror.apply(events),
    fail: (): void => undefined,
  };
  const { endpoint, replayEndpoint } = running.kvEvents!;
  const subscriber = rig.subscriber({ endpoint, replayEndpoint, sink });
  await rig.until(() => subscriber.latest().value.history === 'complete');
  const { pool } = running.engine.scheduler.kv;
  const isExact = (): boolean =>
    mirror.everStored.size > 0 &&
    [...mirror.everStored].every((hash) => mirror.copies.has(hash) === (pool.lookup(hash) !== 0));
  for (let n = 0; n < 12; n++) {
    expect(
      await post(running, '/v1/completions', {
        prompt: `${'the same words '.repeat(n % 3)}${n % 4} ${'and others '.repeat(300)}`,
        max_tokens: 20,
      }),
    ).toBe(200);
    await rig.until(isExact);
  }
  expect(mirror.everStored.size).toBeGreaterThan(mirror.copies.size + 50);
  const { events } = subscriber.latest().value;

  // vLLM sends events at the end of a step: the clearing waits for the next one.
  expect(await post(running, '/reset_prefix_cache')).toBe(200);
  expect(subscriber.latest().value.events).toBe(events);
  await post(running, '/v1/completions', { prompt: 'word '.repeat(40), max_tokens: 1 });
  await rig.until(() => subscriber.latest().value.events > events);
  await rig.until(isExact);
  expect(mirror.copies.size).toBeLessThan(10);
});

test('frames and replay are vLLM’s', async () => {
  const publisher = await rig.publisher({ topic: 'kv@host@model', bufferSteps: 2, dataParallelRank: 1 });
  const subscriber = new Subscriber({ linger: 0 });
  subscriber.subscribe('');
  subscriber.connect(publisher.endpoint);
  rig.onClose(() => subscriber.close());
  let sent = 0;
  const first: Buffer[][] = [];
  void subscriber.receive().then((frames) => first.push(frames));
  await rig.until(() => {
    publisher.publish([{ type: 'removed', hash: ++sent }]);
    return first.length > 0;
  });
  expect(first[0]!.map((frame) => frame.length)).toEqual([13, 8, first[0]![2]!.length]);
  expect(first[0]![0]!.toString()).toBe('kv@host@model');
  expect(decodeBatch(first[0]![2]!)).toMatchObject({ dataParallelRank: 1, unknown: [] });

  const dealer = new Dealer({ linger: 0 });
  dealer.connect(publisher.replayEndpoint!);
  rig.onClose(() => dealer.close());
  await dealer.send([Buffer.alloc(0), Buffer.alloc(8)]);
  const answers = [await dealer.receive(), await dealer.receive(), await dealer.receive()];
  expect(answers.map((frames) => frames.length)).toEqual([4, 4, 4]);
  expect(answers.map((frames) => frames[2]!.readBigUInt64BE())).toEqual([
    BigInt(sent - 2),
    BigInt(sent - 1),
    2n ** 64n - 1n,
  ]);
  expect(answers[2]!.map((frame) => frame.length)).toEqual([0, 0, 8, 0]);
});

test('both encodings say the same, with hashes of 64 bits', async () => {
  const heard: KvEvent[][] = [];
  for (const encoding of ['map', 'array'] as const) {
    const publisher = await rig.publisher({ encoding });
    const events: KvEvent[] = [];
    rig.subscriber({
      endpoint: publisher.endpoint,
      replayEndpoint: publisher.replayEndpoint,
      sink: { begin: () => undefined, apply: (batch) => events.push(...batch), fail: () => undefined },
    });
    publisher.publish([
      {
        type: 'stored',
        hashes: [5, 2 ** 53 - 1],
        parent: 7,
        tokenIds: [1, 2, 3, 4, 5, 6, 7, 8],
        lora: 'sql',
        extraKeys: [['sql'], ['sql']],
      },
      { type: 'removed', hash: 5 },
      { type: 'cleared' },
    ]);
    await rig.until(() => events.length === 3);
    heard.push(events);
  }
  expect(heard[0]).toEqual(heard[1]);
  expect(heard[0]![0]).toEqual({
    type: 'stored',
    hashes: [5, 2 ** 53 - 1],
    parent: 7,
    tokenIds: [1, 2, 3, 4, 5, 6, 7, 8],
    blockSize: 4,
    loraName: 'sql',
    extraKeys: [['sql'], ['sql']],
    medium: 'GPU',
    group: 0,
    specKind: 'full_attention',
  } satisfies BlocksStored);
});

test('a port that is taken, and a replay without events, are refused with the flag that helps', async () => {
  const publisher = await rig.publisher();
  const port = Number(publisher.endpoint.slice(publisher.endpoint.lastIndexOf(':') + 1));
  await expect(
    KvPublisher.start({ host: '127.0.0.1', port, replayPort: undefined, blockSize: 16, wallMs: () => 0 }),
  ).rejects.toThrow(/--kv-events-port/);
  await expect(emulator({ kvEventsPort: undefined })).rejects.toThrow(/--kv-replay-port/);
  const silent = await emulator({ kvEventsPort: undefined, kvReplayPort: undefined });
  expect(silent.kvEvents).toBeUndefined();
});
