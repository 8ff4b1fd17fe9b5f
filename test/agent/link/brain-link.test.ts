import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';
import { BrainLink } from '../../../agent/link/brain-link.ts';
import { SampleQueue } from '../../../agent/entry/samples.ts';
import { decode, encode } from '../../../shared/codec.ts';
import { seededRng } from '../../../shared/env.ts';
import { FaultLog } from '../../../shared/fault-log.ts';
import {
  type AgentMessage,
  type BlocksMessage,
  type BrainMessage,
  MAX_FRAME_BYTES,
  MAX_HASHES_PER_FRAME,
} from '../../../shared/protocol.ts';
import { reportOf } from '../../helpers/reports.ts';
import { logSpy } from '../../helpers/log-spy.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

let clock: VirtualClock;
let server: Server;
let upgrades: number;
let answer: string;
let spy: ReturnType<typeof logSpy>;
let link: BrainLink;
let url: string;

beforeEach(async () => {
  clock = new VirtualClock();
  spy = logSpy();
  upgrades = 0;
  answer = '401 Unauthorized';
  server = createServer();
  server.on('upgrade', (_request, socket) => {
    upgrades += 1;
    socket.end(`HTTP/1.1 ${answer}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n`);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `ws://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const hello = { agent: 'a', epoch: 1, credential: 'c'.repeat(32), version: '0', doorUrl: 'http://a' };
  link = new BrainLink({
    url,
    token: 'wrong',
    hello,
    env: { clock, rng: seededRng(1), log: spy.log },
    samples: new SampleQueue(10),
    faults: new FaultLog(spy.log),
    onMessage: () => undefined,
  });
});

afterEach(async () => {
  link.close();
  server.closeAllConnections();
  if (server.listening) await new Promise((resolve) => server.close(resolve));
});

/** Retries until a condition holds. */
async function until(done: () => boolean): Promise<void> {
  while (!done()) await clock.advanceWithIo(500, 50);
}

test('a failure is said once with its remedy, and again only when it changes', async () => {
  await until(() => upgrades >= 4);
  expect(spy.lines).toMatchObject([
    {
      level: 40,
      msg: 'no link to the brain: the brain refuses the fleet token (HTTP 401); agent and brain must have the same `token`',
    },
  ]);
  answer = '503 Service Unavailable';
  await until(() => link.lastError.includes('server response: 503'));
  await new Promise((resolve) => server.close(resolve));
  await until(() => link.lastError.includes('refused)'));
  for (let i = 0; i < 4; i++) await clock.advanceWithIo(20_000, 1000);
  // A port may read 401, too. A connection that is under way as the server closes may break in a way of its own.
  const said = (text: string): string[] => spy.lines.map(({ msg }) => msg).filter((msg) => msg.includes(text));
  for (const text of ['(HTTP 401)', 'server response: 503', 'connection refused']) expect(said(text)).toHaveLength(1);
  expect(said('connection refused')[0]).toContain(
    `nothing listens at ${url} (connection refused); start the brain there or correct agent.brainUrl`,
  );
});

test('while the brain does not read, deltas are left out at some point, and the whole view is asked for once it reads again', async () => {
  const brain = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(brain, 'listening');
  const heard: BlocksMessage[] = [];
  let peer: WebSocket | undefined;
  brain.on('connection', (socket) => {
    peer = socket;
    socket.on('message', (data: Buffer) => {
      const message = decode(data, MAX_FRAME_BYTES) as AgentMessage;
      if (message.t === 'hello')
        socket.send(encode({ t: 'welcome', protocol: 2, brainEpoch: 1, salt: 'a'.repeat(64), table: null }));
      if (message.t === 'blocks') heard.push(message);
    });
  });
  const asked: string[] = [];
  const hello = { agent: 'a', epoch: 1, credential: 'c'.repeat(32), version: '0', doorUrl: 'http://a' };
  const brainUrl = `ws://127.0.0.1:${(brain.address() as AddressInfo).port}`;
  const full = new BrainLink({
    url: brainUrl,
    token: 't',
    hello,
    env: { clock, rng: seededRng(1), log: spy.log },
    samples: new SampleQueue(10),
    faults: new FaultLog(spy.log),
    onMessage: (message) => void (message.t === 'resend-blocks' && asked.push(message.instance)),
  });
  while (!full.connected) await clock.advanceWithIo(50, 10);
  const delta = (seq: number, reset = false): BlocksMessage => ({
    t: 'blocks',
    instance: 'i',
    incarnation: 1,
    seq,
    reset,
    add: new Uint8Array(8 * MAX_HASHES_PER_FRAME),
    remove: new Uint8Array(0),
    tokens: new Uint8Array(0),
  });
  peer?.pause();
  const sent = 100;
  for (let seq = 0; seq < sent; seq++) full.sendBlocks(delta(seq, seq === 0));
  await clock.advanceWithIo(1000, 10);
  expect(asked).toEqual([]);
  peer?.resume();
  // What waits takes real time; a brain that is alive pings.
  while (asked.length === 0) {
    peer?.ping();
    await clock.advanceWithIo(20, 1);
  }
  expect(asked[0]).toBe('i');
  expect(heard.length).toBeLessThan(sent);
  expect(heard.map(({ seq }) => seq)).toEqual(heard.map((_, i) => i));
  full.sendBlocks(delta(sent));
  full.sendBlocks(delta(sent + 1, true));
  full.sendBlocks(delta(sent + 2));
  while (heard.at(-1)?.seq !== sent + 2) await clock.advanceWithIo(50, 10);
  expect(heard.slice(-2).map(({ seq, reset }) => [seq, reset])).toEqual([
    [sent + 1, true],
    [sent + 2, false],
  ]);
  full.close();
  for (const client of brain.clients) client.terminate();
  brain.close();
});

/** A brain that answers each hello as `greet` does, and the link of an agent to it. */
async function scripted(greet: (socket: WebSocket, attempt: number) => void) {
  const brain = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(brain, 'listening');
  const state = { attempts: 0 };
  const received: BrainMessage[] = [];
  const heard: AgentMessage[] = [];
  const faults = new FaultLog(spy.log);
  brain.on('connection', (socket) => {
    socket.on('message', (data: Buffer) => {
      const message = decode(data, MAX_FRAME_BYTES) as AgentMessage;
      if (message.t === 'hello') greet(socket, (state.attempts += 1));
      else heard.push(message);
    });
  });
  const hello = { agent: 'a', epoch: 1, credential: 'c'.repeat(32), version: '0', doorUrl: 'http://a' };
  const brainUrl = `ws://127.0.0.1:${(brain.address() as AddressInfo).port}`;
  const made = new BrainLink({
    url: brainUrl,
    token: 't',
    hello,
    env: { clock, rng: seededRng(1), log: spy.log },
    samples: new SampleQueue(10),
    faults,
    onMessage: (message) => void received.push(message),
  });
  const close = (): void => {
    made.close();
    for (const client of brain.clients) client.terminate();
    brain.close();
  };
  return { state, received, heard, faults, link: made, close };
}

function welcome(protocol = 3): Buffer {
  return encode({ t: 'welcome', protocol, brainEpoch: 1, salt: 'a'.repeat(64), table: null });
}

test('an agent that is welcomed and dropped again and again comes back ever less often, and says so once', async () => {
  const rig = await scripted((socket) => {
    socket.send(welcome());
    socket.close(1008, 'malformed frame');
  });
  await clock.advanceWithIo(120_000, 50);
  expect(rig.state.attempts).toBeGreaterThan(5);
  expect(rig.state.attempts).toBeLessThan(60);
  expect(rig.link.lastError).toContain('closed with code 1008 (malformed frame)');
  expect(spy.lines.filter(({ msg }) => msg.includes('lost the brain'))).toHaveLength(1);
  expect(spy.lines.filter(({ msg }) => msg === 'connected to the brain')).toHaveLength(1);
  rig.close();
});

test('a link that has lasted is tried again soon when it breaks', async () => {
  let peer: WebSocket | undefined;
  const rig = await scripted((socket) => {
    peer = socket;
    socket.send(welcome());
  });
  while (!rig.link.connected) await clock.advanceWithIo(50, 10);
  await clock.advanceWithIo(12_000, 1000);
  peer?.terminate();
  while (rig.link.connected) await clock.advanceWithIo(10, 10);
  await clock.advanceWithIo(400, 10);
  while (!rig.link.connected) await clock.advanceWithIo(10, 10);
  expect(rig.state.attempts).toBe(2);
  rig.close();
});

test('what the brain sends that does not fit is left out and said once; the link stays', async () => {
  const good = reportOf('good');
  const rig = await scripted((socket) => {
    socket.send(welcome());
    for (let seq = 1; seq <= 3; seq++)
      socket.send(encode({ t: 'state', seq, full: false, reports: [{ ...good, doorUrl: 'ftp://x' }, good], gone: [] }));
  });
  while (rig.received.length < 4) await clock.advanceWithIo(50, 10);
  expect(rig.received.slice(1)).toMatchObject(
    [1, 2, 3].map((seq) => ({ t: 'state', seq, reports: [{ instance: 'good' }] })),
  );
  expect(rig.link.connected).toBe(true);
  expect(rig.faults.count).toBe(3);
  expect(spy.lines.filter(({ msg }) => msg.includes('left out'))).toHaveLength(1);
  rig.close();
});

test('a brain of an earlier protocol gets no more names than it takes, and large reports come in several frames', async () => {
  const rig = await scripted((socket, attempt) => {
    socket.send(welcome(attempt === 1 ? 2 : 3));
  });
  const models = Array.from({ length: 2000 }, (_, i) => `lora-${i}-${'x'.repeat(200)}`);
  const send = async (): Promise<AgentMessage[]> => {
    while (!rig.link.connected) await clock.advanceWithIo(50, 10);
    rig.heard.length = 0;
    rig.link.sendReports(Array.from({ length: 8 }, (_, i) => reportOf(`i${i}`, { models })));
    const count = (): number =>
      rig.heard.reduce((sum, message) => sum + (message.t === 'telemetry' ? message.reports.length : 0), 0);
    while (count() < 8) await clock.advanceWithIo(50, 10);
    return rig.heard;
  };
  const namesIn = (messages: AgentMessage[]): number[] =>
    messages.flatMap((message) =>
      message.t === 'telemetry' ? message.reports.map((report) => report.models.length) : [],
    );
  expect(namesIn(await send())).toEqual(Array.from({ length: 8 }, () => 1024));
  rig.close();
  const wide = await scripted((socket) => socket.send(welcome()));
  while (!wide.link.connected) await clock.advanceWithIo(50, 10);
  wide.link.sendReports(Array.from({ length: 8 }, (_, i) => reportOf(`i${i}`, { models })));
  while (namesIn(wide.heard).length < 8) await clock.advanceWithIo(50, 10);
  expect(namesIn(wide.heard)).toEqual(Array.from({ length: 8 }, () => 2000));
  expect(wide.heard.length).toBeGreaterThan(1);
  wide.close();
});
