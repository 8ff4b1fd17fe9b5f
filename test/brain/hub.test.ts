import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Hub } from '../../brain/hub.ts';
import type { Peer } from '../../brain/connection.ts';
import { newCounters } from '../../brain/counters.ts';
import type { KeptStore } from '../../brain/kept-store.ts';
import { encode } from '../../shared/codec.ts';
import { type AgentMessage, PROTOCOL_OLDEST, PROTOCOL_VERSION } from '../../shared/protocol.ts';
import { logSpy } from '../helpers/log-spy.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import { blocks, hello, report, sample, featureRow, storeIn, tempDir, testEnv, TOKEN } from './fixtures.ts';
import { TestAgent } from './test-agent.ts';

const WEEK_MS = 7 * 24 * 3600 * 1000;

let clock: VirtualClock;
let server: Server;
let url: string;
let store: KeptStore;
let hub: Hub;
let counters: ReturnType<typeof newCounters>;
let dir: ReturnType<typeof tempDir>;
let received: { agent: string; message: AgentMessage | { t: 'samples'; invalid: number; count: number } }[];
let joined: Peer[];
let spy: ReturnType<typeof logSpy>;

beforeEach(async () => {
  clock = new VirtualClock();
  dir = tempDir();
  store = storeIn(dir.dir);
  counters = newCounters();
  received = [];
  joined = [];
  spy = logSpy();
  const welcome = { brainEpoch: 7, salt: 'ab'.repeat(32), table: () => null };
  hub = new Hub(
    { token: TOKEN, maxAgents: 3, maxFrameBytes: 65_536, bufferMaxBytes: 256 * 1024 },
    { ...testEnv(clock), log: spy.log },
    store,
    counters,
    welcome,
    {
      joined: (peer) => void joined.push(peer),
      message: (peer, message) => void received.push({ agent: peer.agent, message }),
      samples: (peer, batch) =>
        void received.push({
          agent: peer.agent,
          message: { t: 'samples', invalid: batch.invalid, count: batch.samples.length },
        }),
      caughtUp: (peer) => {
        peer.owed.state = false;
        peer.send(encode({ t: 'state', seq: 9, full: true, reports: [], gone: [] }));
      },
    },
  );
  server = createServer();
  hub.attach(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  await hub.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
  await store.close();
  dir.remove();
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** Agents that have left, in order. */
function left(): (string | undefined)[] {
  return spy.lines.filter(({ msg }) => msg === 'agent left').map((line) => (line as { agent?: string }).agent);
}

describe('admission', () => {
  it('welcomes an agent with the token, a hello and a common protocol', async () => {
    const agent = await TestAgent.connect(url);
    agent.send(hello('a', { protocol: 99, protocolOldest: 1 }));
    expect(await agent.next('welcome')).toEqual({
      t: 'welcome',
      protocol: PROTOCOL_VERSION,
      brainEpoch: 7,
      salt: 'ab'.repeat(32),
      table: null,
    });
    expect(hub.peer('a')?.hello.doorUrl).toBe('http://a:8080');
  });

  it('answers 401 without the fleet token and 404 off the path', async () => {
    await expect(TestAgent.connect(url, 'another-token-of-16-chars')).rejects.toThrow('HTTP 401');
    expect(counters.unauthorized).toBe(1);
    await expect(TestAgent.connect(`${url}/elsewhere`)).rejects.toThrow('HTTP 404');
  });

  it('refuses a protocol that it does not speak, naming both ranges', async () => {
    const agent = await TestAgent.connect(url);
    agent.socket.send(encode({ t: 'hello', protocol: 5, protocolOldest: 4, agent: 'a', shape: 'of another version' }));
    const refusal = await agent.next('refuse');
    expect(refusal.code).toBe('protocol-version');
    expect(refusal.reason).toContain('4 to 5');
    expect(refusal.reason).toContain(`${PROTOCOL_OLDEST} to ${PROTOCOL_VERSION}`);
    expect((await agent.closed).code).toBe(4002);
  });

  it('refuses another feature schema', async () => {
    const agent = await TestAgent.connect(url);
    agent.send(hello('a', { featureSchema: 99 }));
    expect((await agent.next('refuse')).code).toBe('feature-schema');
  });

  it('drops a connection that says no hello in time, or something else first', async () => {
    const silent = await TestAgent.connect(url);
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(5_000);
    expect((await silent.closed).code).toBe(1008);
    const rude = await TestAgent.connect(url);
    rude.send({ t: 'resync', blocks: [] });
    expect((await rude.closed).code).toBe(1008);
    expect(counters.framesMalformed).toBe(1);
  });

  it('holds no more agents than allowed', async () => {
    for (const name of ['a', 'b', 'c']) await TestAgent.join(url, hello(name));
    const fourth = await TestAgent.connect(url);
    fourth.send(hello('d'));
    expect((await fourth.next('refuse')).code).toBe('too-many-agents');
    await TestAgent.join(url, hello('c'));
  });
});

describe('one agent id', () => {
  it('is taken over by a newer boot with the same credential; the older one is closed', async () => {
    const old = await TestAgent.join(url, hello('a', { epoch: 1 }));
    const young = await TestAgent.join(url, hello('a', { epoch: 2 }));
    expect(await old.closed).toEqual({ code: 4001, reason: 'replaced' });
    expect(hub.peer('a')?.epoch).toBe(2);
    expect(left()).toEqual(['a']);
    young.send({ t: 'resync', blocks: [] });
    await until(() => received.length > 0);
    expect(received[0]?.agent).toBe('a');
  });

  it('is refused to an older boot', async () => {
    await TestAgent.join(url, hello('a', { epoch: 5 }));
    const old = await TestAgent.connect(url);
    old.send(hello('a', { epoch: 4 }));
    expect((await old.next('refuse')).code).toBe('stale-epoch');
    expect(hub.peer('a')?.epoch).toBe(5);
  });

  it('is refused to a stranger, also while the agent is away, until it has been gone for a week', async () => {
    const agent = await TestAgent.join(url, hello('a'));
    const tryStranger = async (): Promise<string> => {
      const stranger = await TestAgent.connect(url);
      stranger.send(hello('a', { epoch: 9, credential: 'the-credential-of-a-stranger' }));
      return (await Promise.race([stranger.next('refuse'), stranger.next('welcome')])).t;
    };
    expect(await tryStranger()).toBe('refuse');
    agent.close();
    await until(() => left().length > 0);
    expect(await tryStranger()).toBe('refuse');
    clock.advance(WEEK_MS + 1);
    expect(await tryStranger()).toBe('welcome');
  });
});

describe('frames', () => {
  it('passes valid ones on, and counts samples that do not fit without dropping the rest', async () => {
    const agent = await TestAgent.join(url, hello('a'));
    agent.send({ t: 'telemetry', seq: 1, reports: [report('i', 'a')] });
    const good = sample(featureRow(), 0, 0);
    agent.socket.send(encode({ t: 'samples', batch: 0, dropped: 0, samples: [good, { ...good, priorTtftMs: -1 }] }));
    await until(() => received.length === 2);
    expect(received[0]?.message).toMatchObject({ t: 'telemetry', reports: [{ instance: 'i' }] });
    expect(received[1]?.message).toEqual({ t: 'samples', invalid: 1, count: 1 });
  });

  it.each([
    ['bytes that are not MessagePack', Buffer.from([0xc1, 0xff, 0xff])],
    ['an unknown message', encode({ t: 'sing' })],
    ['a field of the wrong type', encode({ t: 'telemetry', seq: 'one', reports: [] })],
    ['a second hello', encode(hello('bad'))],
  ])('drops the sender of %s and goes on', async (_name, frame) => {
    const bad = await TestAgent.join(url, hello('bad'));
    const good = await TestAgent.join(url, hello('good'));
    bad.socket.send(frame);
    expect((await bad.closed).code).toBe(1008);
    expect(counters.framesMalformed).toBe(1);
    good.send({ t: 'resync', blocks: [] });
    await until(() => received.length > 0);
    expect(hub.peers().map((peer) => peer.agent)).toEqual(['good']);
  });

  it('leaves out a report or a delta that does not fit, says it once, and keeps its sender', async () => {
    const agent = await TestAgent.join(url, hello('a'));
    const odd = report('odd', 'a', { doorUrl: 'ftp://host' });
    const gauges = report('gauges', 'a', { engine: { running: 0, waiting: 0, kvUsageRatio: -0.39, ageMs: 0 } });
    for (let seq = 0; seq < 3; seq++) agent.send({ t: 'telemetry', seq, reports: [odd, gauges, report('i', 'a')] });
    agent.socket.send(encode({ ...blocks('i', 0, [1]), add: new Uint8Array(7) }));
    agent.send({ t: 'resync', blocks: [] });
    await until(() => received.length === 4);
    expect(received[0]?.message).toMatchObject({ reports: [{ instance: 'gauges', engine: null }, { instance: 'i' }] });
    expect(hub.peers()).toHaveLength(1);
    expect(counters).toMatchObject({ framesMalformed: 0, reportFaults: 7 });
    expect(hub.faults.status()).toMatchObject({
      count: 7,
      newest: [
        { from: 'a', instance: 'odd' },
        { from: 'a', instance: 'gauges' },
        { from: 'a', instance: 'i' },
      ],
    });
    expect(spy.lines.filter(({ msg }) => msg.startsWith('left out'))).toHaveLength(3);
  });

  it('drops the sender of an oversized frame', async () => {
    const agent = await TestAgent.join(url, hello('a'));
    agent.socket.send(Buffer.alloc(65_537));
    expect((await agent.closed).code).toBe(1009);
    await until(() => left().length > 0);
    expect(counters.framesOversized).toBe(1);
  });
});

describe('liveness', () => {
  it('pings, keeps who answers and drops who is silent', async () => {
    const alive = await TestAgent.join(url, hello('alive'));
    const dead = await TestAgent.join(url, hello('dead'));
    dead.socket.pause();
    const pings = { seen: 0 };
    alive.socket.on('ping', () => (pings.seen += 1));
    for (let i = 0; i < 80 && left().length === 0; i++) {
      clock.advance(250);
      if (i % 20 !== 19) continue;
      const before = pings.seen;
      while (pings.seen === before) await new Promise((resolve) => setImmediate(resolve));
      alive.send({ t: 'resync', blocks: [] });
      const seen = received.length;
      await until(() => received.length > seen || left().length > 0);
    }
    await until(() => left().length > 0);
    expect(left()).toEqual(['dead']);
    expect(hub.peers().map((peer) => peer.agent)).toEqual(['alive']);
    expect(counters.peersDropped).toBe(1);
  });

  it('sends a slow reader nothing more, lets it catch up, and drops it if it stays slow', async () => {
    const reader = await TestAgent.join(url, hello('slow'));
    const peer = joined[0] as Peer;
    reader.socket.pause();
    const chunk = encode({
      t: 'state',
      seq: 1,
      full: false,
      reports: [],
      gone: Array.from({ length: 4000 }, () => 'x'.repeat(250)),
    });
    while (!peer.slow()) peer.send(chunk);
    hub.broadcast({ t: 'ack', batch: 1 }, (one) => (one.owed.state = true));
    expect(peer.owed.state).toBe(true);

    reader.socket.resume();
    while (!peer.ready()) await new Promise((resolve) => setImmediate(resolve));
    clock.advance(250);
    expect((await reader.next('state', ({ full }) => full)).seq).toBe(9);
    expect(reader.messages.some((message) => message.t === 'ack')).toBe(false);

    reader.socket.pause();
    while (!peer.slow()) peer.send(chunk);
    clock.advance(9_500);
    expect(hub.peers()).toHaveLength(1);
    clock.advance(1_000);
    await until(() => left().length > 0);
    expect(counters.peersDropped).toBe(1);
  });
});

it('warns of connections without the token at most each 10 s, with their count', async () => {
  const refused = (): Promise<void> => expect(TestAgent.connect(url, 'wrong')).rejects.toThrow('401');
  const counts = (): unknown[] =>
    spy.lines.filter(({ msg }) => msg.includes('without the fleet token')).map((line) => ({ ...line }) as unknown);
  for (let i = 0; i < 3; i++) await refused();
  expect(counts()).toMatchObject([{ level: 40, count: 1, from: expect.stringContaining('127.0.0.1') as string }]);
  clock.advance(10_000);
  await refused();
  expect(counts()).toMatchObject([{ count: 1 }, { count: 3 }]);
  expect(counters.unauthorized).toBe(4);
});
