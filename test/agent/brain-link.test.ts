import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { BrainLink } from '../../agent/brain-link.ts';
import { SampleQueue } from '../../agent/samples.ts';
import { seededRng } from '../../shared/env.ts';
import { logSpy } from '../helpers/log-spy.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';

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
  link = new BrainLink({ url, token: 'wrong', hello, env: { clock, rng: seededRng(1), log: spy.log }, samples: new SampleQueue(10), onMessage: () => undefined });
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
  expect(spy.lines).toMatchObject([{ level: 40, msg: 'no link to the brain: the brain refuses the fleet token (HTTP 401); agent and brain must have the same `token`' }]);
  answer = '503 Service Unavailable';
  await until(() => link.lastError.includes('503'));
  await new Promise((resolve) => server.close(resolve));
  await until(() => link.lastError.includes('refused)'));
  for (let i = 0; i < 4; i++) await clock.advanceWithIo(20_000, 1000);
  // A connection that is under way as the server closes may break in a way of its own.
  const said = (text: string): string[] => spy.lines.map(({ msg }) => msg).filter((msg) => msg.includes(text));
  for (const text of ['401', '503', 'connection refused']) expect(said(text)).toHaveLength(1);
  expect(said('connection refused')[0]).toContain(`nothing listens at ${url} (connection refused); start the brain there or correct agent.brainUrl`);
});
