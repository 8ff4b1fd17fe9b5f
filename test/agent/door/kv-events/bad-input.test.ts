import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createServer as createTcpServer } from 'node:net';
import { Packr } from 'msgpackr';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Publisher } from 'zeromq';
import { makeKvEventSubscriber } from '../../../../agent/door/kv-events/make-subscriber.ts';
import type { KvEventSubscriber } from '../../../../agent/door/kv-events/subscriber.ts';
import { loadConfig } from '../../../../shared/config/index.ts';
import { silentLog } from '../../../../shared/env.ts';
import type { KvEvent } from '../../../../agent/door/kv-events/kv-event.ts';
import { KvRig, range, stored } from '../../../helpers/kv-events.ts';

let rig: KvRig;

beforeEach(() => {
  rig = new KvRig();
});

afterEach(() => rig.close());

const packr = new Packr({ useRecords: false });
const seqOf = (seq: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(seq));
  return bytes;
};
const removed = (hash: number, rank?: number): Buffer =>
  packr.pack([1.5, [{ type: 'BlockRemoved', block_hashes: [hash] }], ...(rank === undefined ? [] : [rank])]);

/** A publisher whose messages the test writes. */
class RawPublisher {
  readonly socket = new Publisher({ linger: 0 });
  private seq = 0;

  async listen(): Promise<string> {
    await this.socket.bind('tcp://127.0.0.1:0');
    return this.socket.lastEndpoint as string;
  }

  good(hash: number, rank?: number): Promise<void> {
    return this.payload(removed(hash, rank));
  }

  payload(payload: Buffer): Promise<void> {
    return this.socket.send(['', seqOf(this.seq++), payload]);
  }
}

async function connected(rank?: number): Promise<{ publisher: RawPublisher; subscriber: KvEventSubscriber }> {
  const publisher = new RawPublisher();
  const endpoint = await publisher.listen();
  rig.onClose(() => publisher.socket.close());
  const subscriber = rig.subscriber({ endpoint, rank });
  // What is sent before the subscription arrives is lost.
  while (rig.sink.calls.length === 0) {
    await publisher.good(0, rank);
    await rig.clock.advanceWithIo(5);
  }
  await publisher.good(1, rank);
  await rig.until(() => rig.sink.now.hashes.at(-1) === 1);
  return { publisher, subscriber };
}

describe('messages that are not vLLM’s', () => {
  const cases: [string, (publisher: RawPublisher) => Promise<void>, string, string][] = [
    [
      'another number of frames',
      (publisher) => publisher.socket.send(['kv', 'hello']),
      'frames',
      'set kvEvents.endpoint to the "endpoint" of vLLM\'s --kv-events-config',
    ],
    [
      'a number that is none',
      (publisher) => publisher.socket.send(['', 'hello', removed(1)]),
      'frames',
      'set kvEvents.endpoint',
    ],
    ['garbage', (publisher) => publisher.payload(Buffer.from('hello')), 'payload', 'is tcp://127.0.0.1:'],
    [
      'an unknown type of event',
      (publisher) => publisher.payload(packr.pack([1, [{ type: 'BlockMoved' }]])),
      'type',
      '(BlockMoved): update Lodestar',
    ],
    ['another rank', (publisher) => publisher.good(7, 1), 'rank', 'set dataParallelRank to 1'],
  ];

  test.each(cases)(
    '%s: said once, the view falls back, and recovers with the first good batch',
    async (_name, sendBad, kind, fix) => {
      const { publisher, subscriber } = await connected(0);
      for (let n = 0; n < 20; n++) await sendBad(publisher);
      await rig.until(() => subscriber.latest().value.bad[kind as 'frames'] === 20);
      expect(rig.warnings).toEqual([expect.stringContaining(fix)]);
      expect(rig.sink.problems).toEqual([expect.stringContaining(fix)]);
      expect(subscriber.status()).toMatchObject({ ok: false, error: expect.stringContaining(fix) as string });
      expect(subscriber.latest().value.history).toBe('none');
      await publisher.good(50, 0);
      await publisher.good(51, 0);
      await rig.until(() => rig.sink.now.hashes.at(-1) === 51);
      expect(rig.sink.calls.slice(-4)).toEqual(['fail', 'begin false', 50, 51]);
      expect(subscriber.status()).toMatchObject({ ok: true, error: undefined });
      expect(rig.warnings).toHaveLength(1);
    },
  );

  test('a stream that is bad now and then is tried less and less often', async () => {
    const { publisher, subscriber } = await connected();
    for (let n = 0; n < 10; n++) {
      await publisher.payload(Buffer.from('bad'));
      await publisher.good(100 + n);
      await rig.clock.advanceWithIo(100);
    }
    await rig.until(() => subscriber.latest().value.bad.payload === 10);
    expect(rig.sink.problems).toHaveLength(2);
    expect(rig.warnings).toHaveLength(1);
    rig.clock.advance(60_000);
    await publisher.good(200);
    await rig.until(() => rig.sink.now.hashes.at(-1) === 200);
  });

  test('the rank of a stream that has one only is taken as it is, and told', async () => {
    const { publisher, subscriber } = await connected();
    expect(rig.sink.problems).toEqual([]);
    await publisher.good(5, 3);
    await rig.until(() => rig.sink.now.hashes.at(-1) === 5);
    expect(rig.lines.map((line) => line.msg)).toContainEqual(expect.stringContaining('set dataParallelRank'));
    await publisher.good(6, 4);
    await rig.until(() => subscriber.latest().value.bad.rank === 1);
    expect(rig.sink.problems).toEqual([expect.stringContaining('rank 4, and this instance is rank 3')]);
  });
});

describe('what listens is no publisher', () => {
  const closeHttp = (server: Server): void => {
    server.closeAllConnections();
    server.close();
  };

  test('an HTTP server: said once, and the stream is heard when vLLM listens there', async () => {
    const server = createServer((_request, response) => response.end('hi')).listen(0, '127.0.0.1');
    await rig.until(() => server.listening);
    const { port } = server.address() as AddressInfo;
    const subscriber = rig.subscriber({ endpoint: `tcp://127.0.0.1:${port}` });
    expect(subscriber.status().error).toContain('never connected');
    await rig.untilTime(() => rig.sink.problems.length > 0);
    await rig.clock.advanceWithIo(20_000, 100);
    expect(rig.warnings).toEqual([
      expect.stringContaining("publishes nothing in ZeroMQ's protocol: set kvEvents.endpoint"),
    ]);
    expect(rig.sink.problems).toHaveLength(1);
    closeHttp(server);
    const publisher = await rig.publisher({ port });
    await rig.untilTime(() => subscriber.latest().value.connected);
    publisher.publish([{ type: 'removed', hash: 9 }]);
    await rig.until(() => {
      publisher.publish([{ type: 'removed', hash: 9 }]);
      return rig.sink.now.hashes.includes(9);
    });
    expect(subscriber.status().ok).toBe(true);
  });

  test.each([
    ['says nothing', ''],
    ['greets in another protocol', 'SSH-2.0-x\r\n'],
  ])('a server that %s', async (_name, greeting) => {
    const server = createTcpServer((socket) => {
      socket.on('error', () => undefined);
      if (greeting !== '') socket.write(greeting);
    }).listen(0, '127.0.0.1');
    rig.onClose(() => void server.close());
    await rig.until(() => server.listening);
    const subscriber = rig.subscriber({ endpoint: `tcp://127.0.0.1:${(server.address() as AddressInfo).port}` });
    await rig.untilTime(() => rig.sink.problems.length > 0);
    expect(rig.sink.problems[0]).toContain('set kvEvents.endpoint');
    subscriber.stop();
  });

  test('the replay port', async () => {
    const publisher = await rig.publisher();
    rig.subscriber({ endpoint: publisher.replayEndpoint as string });
    await rig.untilTime(() => rig.sink.problems.length > 0);
    expect(rig.sink.problems[0]).toContain('not to its HTTP or replay port');
  });

  test('nobody: no problem is logged, since vLLM may be on its way, but the status says how to switch events on', async () => {
    const subscriber = rig.subscriber({ endpoint: 'tcp://127.0.0.1:1' });
    await rig.clock.advanceWithIo(20_000, 100);
    expect(rig.warnings).toEqual([]);
    expect(rig.sink.calls).toEqual([]);
    expect(subscriber.status()).toMatchObject({
      ok: false,
      error: expect.stringContaining('--kv-events-config') as string,
    });
    expect(subscriber.latest().value).toMatchObject({ connected: false, everConnected: false, silentMs: undefined });
  });
});

test('an idle stream is no problem, and its silence is told', async () => {
  const publisher = await rig.publisher();
  const subscriber = rig.subscriber({ endpoint: publisher.endpoint });
  await rig.until(() => {
    publisher.publish([{ type: 'removed', hash: 9 }]);
    return subscriber.latest().value.silentMs !== undefined;
  });
  publisher.publish([{ type: 'removed', hash: 10 }]);
  await rig.until(() => rig.sink.now.hashes.at(-1) === 10);
  for (let n = 0; n < 60; n++) {
    rig.clock.advance(1000);
    await rig.clock.advanceWithIo(1);
    await new Promise((resolve) => setImmediate(resolve));
  }
  expect(subscriber.latest().value.silentMs).toBeGreaterThan(59_000);
  expect(rig.sink.problems).toEqual([]);
});

test('a stop before or after the connection closes everything', async () => {
  const publisher = await rig.publisher();
  const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
  subscriber.stop();
  await rig.clock.advanceWithIo(1000);
  expect(rig.sink.calls).toEqual([]);
  subscriber.start();
  await rig.until(() => rig.sink.calls.length > 0);
  subscriber.stop();
  subscriber.stop();
  const heard = rig.sink.calls.length;
  publisher.publish([{ type: 'cleared' }]);
  await rig.clock.advanceWithIo(5000, 50);
  expect(rig.sink.calls).toHaveLength(heard);
  subscriber.start();
  await rig.until(() => rig.sink.now.hashes.at(-1) === -1);
});

test('an instance without kvEvents has no subscriber, and one of a rank listens at the ports of that rank', () => {
  const env = { clock: rig.clock, log: silentLog };
  const instances = loadConfig({
    env: {},
    overrides: {
      token: 'x'.repeat(16),
      agent: {
        instances: [
          { id: 'a', url: 'http://127.0.0.1:8000' },
          {
            id: 'b',
            url: 'http://127.0.0.1:8001',
            dataParallelRank: 2,
            kvEvents: { endpoint: 'tcp://127.0.0.1:5557', replayEndpoint: 'tcp://[::1]:5657' },
          },
          {
            id: 'c',
            url: 'http://127.0.0.1:8002',
            dataParallelRank: 2,
            kvEvents: { endpoint: 'ipc:///run/vllm-5557' },
          },
        ],
      },
    },
  }).agent.instances;
  const figures = instances.map((instance) => makeKvEventSubscriber(instance, rig.sink, env)?.latest().value);
  expect(figures[0]).toBeUndefined();
  expect(figures[1]).toMatchObject({ endpoint: 'tcp://127.0.0.1:5559', replayEndpoint: 'tcp://[::1]:5659' });
  expect(figures[2]).toMatchObject({ endpoint: 'ipc:///run/vllm-5557', replayEndpoint: undefined });
});

test('where ZeroMQ does not load, that is said once with the fix', async () => {
  vi.doMock('zeromq', () => {
    throw new Error('No compatible zeromq.js addon found');
  });
  const subscriber = rig.subscriber({ endpoint: 'tcp://127.0.0.1:1' });
  await rig.until(() => rig.sink.problems.length > 0);
  vi.doUnmock('zeromq');
  expect(rig.warnings).toEqual([expect.stringContaining('run `npm ci` on this machine')]);
  expect(subscriber.status()).toMatchObject({ ok: false, error: expect.stringContaining('zeromq') as string });
});

describe('a view that throws', () => {
  /** The rig's sink, which throws while `isBroken`. */
  function brittle() {
    const state = { isBroken: false, failsToo: false };
    const { sink } = rig;
    const check = (): void => {
      if (state.isBroken) throw new Error('a hole in the account');
    };
    return {
      state,
      sink: {
        begin: (complete: boolean) => (check(), sink.begin(complete)),
        apply: (events: readonly KvEvent[]) => (check(), sink.apply(events)),
        fail: (problem: string) => {
          if (state.failsToo) throw new Error('no way down');
          sink.fail(problem);
        },
      },
    };
  }

  test.each([false, true])(
    'costs the events until the next good message, and nothing else; even the fall back may throw: %s',
    async (failsToo) => {
      const publisher = await rig.publisher();
      const { state, sink } = brittle();
      const subscriber = rig.subscriber({
        endpoint: publisher.endpoint,
        replayEndpoint: publisher.replayEndpoint,
        sink,
      });
      await rig.until(() => rig.sink.histories.length === 1);
      Object.assign(state, { isBroken: true, failsToo });
      publisher.publish(stored(1));
      await rig.until(() => subscriber.status().error?.includes('a hole in the account') === true);
      expect(rig.lines.filter(({ level }) => level === 50)).toHaveLength(1);
      expect(rig.sink.problems).toHaveLength(failsToo ? 0 : 1);
      expect(subscriber.latest().value.bad).toMatchObject({ own: 1 });
      Object.assign(state, { isBroken: false, failsToo: false });
      let next = 2;
      await rig.untilTime(() => {
        publisher.publish(stored(next++));
        return subscriber.status().error === undefined;
      });
      await rig.until(() => rig.sink.now.hashes.length >= next - 1);
      expect(rig.sink.now.hashes.slice(0, 3)).toEqual([1, 2, 3]);
    },
  );

  test('that is empty again is told all from the beginning', async () => {
    const publisher = await rig.publisher();
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    for (const hash of range(0, 20)) publisher.publish(stored(hash));
    await rig.until(() => rig.sink.now.hashes.length === 20);
    subscriber.startAnew();
    await rig.until(() => rig.sink.histories.length === 2 && rig.sink.now.hashes.length === 20);
    expect(rig.sink.now).toEqual({ complete: true, hashes: range(0, 20) });
  });
});
