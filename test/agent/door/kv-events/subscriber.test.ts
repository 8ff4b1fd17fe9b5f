import type { KvEventSubscriber } from '../../../../agent/door/kv-events/subscriber.ts';
import type { KvPublisher } from '../../../../sim/engine/kv-publisher.ts';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { KvRig, portOf, range, stored } from '../../../helpers/kv-events.ts';
import { TcpProxy } from '../../../helpers/tcp-proxy.ts';

let rig: KvRig;

beforeEach(() => {
  rig = new KvRig();
});

afterEach(() => rig.close());

const publishAll = (publisher: KvPublisher, hashes: readonly number[]): void => {
  for (const hash of hashes) publisher.publish(stored(hash));
};

const heard = (hashes: readonly number[]) => (): boolean => {
  const { now } = rig.sink;
  return now.hashes.length === hashes.length && now.hashes.every((hash, at) => hash === hashes[at]);
};

/**
 * Publishes one number after another until the live stream has brought one: a subscription takes effect some time after
 * the connection. Returns the next number.
 */
async function untilLive(publisher: KvPublisher, subscriber: KvEventSubscriber, from = 0): Promise<number> {
  let next = from;
  await rig.until(() => {
    publishAll(publisher, [next++]);
    return subscriber.latest().value.silentMs !== undefined;
  });
  await rig.until(() => rig.sink.now.hashes.at(-1) === next - 1);
  return next;
}

async function proxyTo(endpoint: string): Promise<TcpProxy> {
  const proxy = await TcpProxy.start(endpoint);
  rig.onClose(() => proxy.close());
  return proxy;
}

describe('a stream from its beginning', () => {
  test('is heard whole and in order, in both encodings', async () => {
    for (const encoding of ['map', 'array'] as const) {
      const publisher = await rig.publisher({ encoding });
      const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
      await rig.until(() => subscriber.latest().value.history === 'complete');
      publishAll(publisher, range(0, 500));
      await rig.until(heard(range(0, 500)));
      expect(rig.sink.now.complete).toBe(true);
      expect(subscriber.latest().value).toMatchObject({
        connected: true,
        lastSeq: 499,
        batches: 500,
        events: 500,
        gaps: 0,
        lost: 0,
        bad: {},
        problem: undefined,
      });
      expect(subscriber.status()).toMatchObject({ ok: true, error: undefined });
      subscriber.stop();
    }
    expect(rig.warnings).toEqual([]);
  });

  test('removals and clearings keep their place', async () => {
    const publisher = await rig.publisher();
    rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await rig.until(() => rig.sink.histories.length === 1);
    publisher.publish([...stored(1), { type: 'removed', hash: 1 }, { type: 'cleared' }, ...stored(2)]);
    await rig.until(heard([1, 1, -1, 2]));
  });
});

describe('a late start', () => {
  test('with replay: all that the buffer has, and complete if that is all', async () => {
    const publisher = await rig.publisher();
    publishAll(publisher, range(0, 300));
    rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await rig.until(heard(range(0, 300)));
    publishAll(publisher, range(300, 310));
    await rig.until(heard(range(0, 310)));
    expect(rig.sink.histories.map((one) => one.complete)).toEqual([true]);
  });

  test('with a buffer that no longer reaches back: from its first batch on, and not complete', async () => {
    const publisher = await rig.publisher({ bufferSteps: 50 });
    publishAll(publisher, range(0, 300));
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await rig.until(heard(range(250, 300)));
    expect(rig.sink.histories.map((one) => one.complete)).toEqual([false]);
    expect(subscriber.latest().value.history).toBe('partial');
  });

  test('without replay: from the next batch on, and not complete', async () => {
    const publisher = await rig.publisher({ replayPort: undefined });
    publishAll(publisher, range(0, 10));
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint });
    const next = await untilLive(publisher, subscriber, 10);
    expect(rig.sink.histories).toEqual([{ complete: false, hashes: range(rig.sink.now.hashes[0]!, next) }]);
    expect(rig.sink.now.hashes[0]).toBeGreaterThanOrEqual(10);
  });

  test('a buffer longer than what a ROUTER holds for its peer comes whole', async () => {
    const publisher = await rig.publisher();
    publishAll(publisher, range(0, 9000));
    rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await rig.untilTime(heard(range(0, 9000)));
    expect(rig.sink.histories).toHaveLength(1);
  });

  test('live batches that come during the replay follow it once', async () => {
    const publisher = await rig.publisher();
    publishAll(publisher, range(0, 2000));
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await rig.until(() => subscriber.latest().value.connected);
    for (let at = 2000; at < 3000; at += 10) {
      publishAll(publisher, range(at, at + 10));
      await rig.clock.advanceWithIo(1);
    }
    await rig.untilTime(heard(range(0, 3000)));
    expect(rig.sink.histories).toHaveLength(1);
  });
});

describe('lost batches', () => {
  test('of a link that was cut come from the replay socket', async () => {
    const publisher = await rig.publisher();
    const link = await proxyTo(publisher.endpoint);
    const subscriber = rig.subscriber({ endpoint: link.endpoint, replayEndpoint: publisher.replayEndpoint });
    publishAll(publisher, range(0, 10));
    await rig.until(heard(range(0, 10)));
    link.cut();
    await rig.until(() => !subscriber.latest().value.connected);
    publishAll(publisher, range(10, 200));
    await rig.clock.advanceWithIo(10_000, 100);
    expect(rig.sink.now.hashes).toHaveLength(10);
    expect(subscriber.status().error).toContain('not connected to');
    link.restore();
    await rig.until(heard(range(0, 200)));
    expect(rig.sink.histories).toHaveLength(1);
    expect(subscriber.latest().value).toMatchObject({ lost: 0, restarts: 0, history: 'complete' });
  });

  test('of a link that was cut together with the replay, too', async () => {
    const publisher = await rig.publisher();
    const link = await proxyTo(publisher.endpoint);
    const replayLink = await proxyTo(publisher.replayEndpoint!);
    const subscriber = rig.subscriber({ endpoint: link.endpoint, replayEndpoint: replayLink.endpoint });
    publishAll(publisher, range(0, 10));
    await rig.until(heard(range(0, 10)));
    for (const one of [link, replayLink]) one.cut();
    await rig.until(() => !subscriber.latest().value.connected);
    publishAll(publisher, range(10, 200));
    await rig.clock.advanceWithIo(10_000, 100);
    for (const one of [link, replayLink]) one.restore();
    await rig.until(heard(range(0, 200)));
    expect(rig.sink.histories).toHaveLength(1);
  });

  test('dropped at the high-water mark of the publisher come from the replay socket', async () => {
    const publisher = await rig.publisher({ highWaterMark: 5 });
    const link = await proxyTo(publisher.endpoint);
    const subscriber = rig.subscriber({ endpoint: link.endpoint, replayEndpoint: publisher.replayEndpoint });
    publishAll(publisher, [0]);
    await rig.until(heard([0]));
    link.hold();
    const large = {
      type: 'stored',
      parent: null,
      lora: null,
      extraKeys: null as unknown as [],
      tokenIds: Array.from({ length: 60_000 }, () => 100_000),
    } as const;
    for (let hash = 1; hash <= 150; hash++) publisher.publish([{ ...large, hashes: [hash] }]);
    await rig.clock.advanceWithIo(100);
    link.restore();
    publishAll(publisher, [151]);
    await rig.untilTime(heard(range(0, 152)));
    expect(rig.sink.histories).toHaveLength(1);
    expect(subscriber.latest().value.replays).toBeGreaterThan(1);
  });

  test('beyond the buffer begin a new history', async () => {
    const publisher = await rig.publisher({ bufferSteps: 20 });
    const link = await proxyTo(publisher.endpoint);
    const subscriber = rig.subscriber({ endpoint: link.endpoint, replayEndpoint: publisher.replayEndpoint });
    publishAll(publisher, range(0, 10));
    await rig.until(heard(range(0, 10)));
    link.cut();
    await rig.until(() => !subscriber.latest().value.connected);
    publishAll(publisher, range(10, 100));
    link.restore();
    await rig.until(heard(range(80, 100)));
    expect(rig.sink.histories.map((one) => one.complete)).toEqual([true, false]);
    expect(subscriber.latest().value).toMatchObject({ lost: 70, history: 'partial' });
  });

  test('without replay begin a new history', async () => {
    const publisher = await rig.publisher({ replayPort: undefined });
    const link = await proxyTo(publisher.endpoint);
    const subscriber = rig.subscriber({ endpoint: link.endpoint });
    let next = await untilLive(publisher, subscriber);
    link.cut();
    await rig.until(() => !subscriber.latest().value.connected);
    publishAll(publisher, [next++, next++]);
    link.restore();
    await rig.until(() => subscriber.latest().value.connected);
    expect(rig.sink.histories).toHaveLength(2);
    expect(rig.sink.now).toEqual({ complete: false, hashes: [] });
    await rig.until(() => {
      publishAll(publisher, [next++]);
      return rig.sink.now.hashes.length > 0;
    });
    expect(rig.sink.histories).toHaveLength(2);
  });

  test('at the end of the stream are found while it is quiet', async () => {
    const publisher = await rig.publisher();
    const link = await proxyTo(publisher.endpoint);
    const subscriber = rig.subscriber({ endpoint: link.endpoint, replayEndpoint: publisher.replayEndpoint });
    const next = await untilLive(publisher, subscriber);
    link.hold();
    publishAll(publisher, [next, next + 1]);
    await rig.untilTime(heard(range(0, next + 2)));
    link.restore();
    // The same two may come a second time now, and change nothing.
    publishAll(publisher, [next + 2]);
    await rig.untilTime(heard(range(0, next + 3)));
    expect(rig.sink.calls).toEqual(['begin true', ...range(0, next + 3)]);
  });
});

describe('an engine restart', () => {
  const restart = (publisher: KvPublisher): Promise<KvPublisher> => {
    publisher.close();
    return rig.publisher({
      port: portOf(publisher.endpoint),
      replayPort: publisher.replayEndpoint === undefined ? undefined : portOf(publisher.replayEndpoint),
    });
  };

  test('clears, also if the new engine has said nothing yet', async () => {
    const publisher = await rig.publisher();
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    publishAll(publisher, range(0, 10));
    await rig.until(heard(range(0, 10)));
    const next = await restart(publisher);
    await rig.until(() => rig.sink.now.hashes.length === 0 && rig.sink.now.complete);
    publishAll(next, [50, 51]);
    await rig.until(heard([50, 51]));
    expect(rig.sink.now.complete).toBe(true);
    expect(subscriber.latest().value).toMatchObject({ lastSeq: 1, restarts: 1 });
  });

  test('is seen when the new engine is past the old number before it is heard', async () => {
    const publisher = await rig.publisher();
    rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    publishAll(publisher, range(0, 3));
    await rig.until(heard(range(0, 3)));
    const next = await restart(publisher);
    publishAll(next, range(100, 120));
    await rig.until(heard(range(100, 120)));
    expect(rig.sink.now.complete).toBe(true);
  });

  test('without replay: the sequence from 0 is complete', async () => {
    const publisher = await rig.publisher({ replayPort: undefined });
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint });
    await untilLive(publisher, subscriber);
    const next = await restart(publisher);
    await rig.until(() => subscriber.latest().value.connected && rig.sink.histories.length === 2);
    expect(rig.sink.now).toEqual({ complete: false, hashes: [] });
    let hash = 1000;
    await rig.until(() => {
      publishAll(next, [hash++]);
      return rig.sink.now.hashes.length > 0;
    });
    expect(rig.sink.now.hashes[0]).toBeGreaterThanOrEqual(1000);
  });
});

describe('replay that is of no use', () => {
  test('where nobody answers: said once, the stream is followed, and all is fetched once it answers', async () => {
    const publisher = await rig.publisher();
    const link = await proxyTo(publisher.replayEndpoint!);
    link.hold();
    publishAll(publisher, [0, 1]);
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: link.endpoint });
    await rig.untilTime(() => rig.warnings.length > 0);
    expect(rig.warnings[0]).toContain('set kvEvents.replayEndpoint to the "replay_endpoint"');
    expect(subscriber.status().error).toContain('does not answer');
    publishAll(publisher, [2, 3]);
    await rig.until(() => rig.sink.now.hashes.at(-1) === 3);
    expect(rig.sink.now.complete).toBe(false);
    link.restore();
    await rig.untilTime(heard([0, 1, 2, 3]));
    expect(rig.sink.now.complete).toBe(true);
    expect(subscriber.status().ok).toBe(true);
    expect(rig.warnings).toHaveLength(1);
    expect(rig.sink.problems).toEqual([]);
  });

  test('with an empty buffer: said once, and a gap is a gap', async () => {
    const publisher = await rig.publisher({ bufferSteps: 0 });
    const subscriber = rig.subscriber({ endpoint: publisher.endpoint, replayEndpoint: publisher.replayEndpoint });
    await untilLive(publisher, subscriber);
    const before = [...rig.sink.now.hashes];
    expect(rig.sink.now.complete).toBe(before[0] === 0);
    expect(rig.warnings).toEqual([expect.stringContaining('set "buffer_steps"')]);
    await rig.clock.advanceWithIo(5000, 50);
    expect(rig.sink.now.hashes).toEqual(before);
    expect(subscriber.latest().value.restarts).toBe(0);
  });
});
