import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Agent } from 'undici';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { VllmHealthCollector, type VllmHealth } from '../../../../agent/door/collectors/vllm-health.ts';
import { silentLog } from '../../../../shared/env.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

const dispatcher = new Agent();
let server: Server;
let url = '';
let port = 0;
let health = 200;
let models: unknown;
let version: unknown;
let apiKey: string | undefined;
let silent = false;
const seen: string[] = [];

beforeEach(async () => {
  health = 200;
  models = {
    object: 'list',
    data: [
      { id: 'm', max_model_len: 4096, parent: null },
      { id: 'lora', max_model_len: null, parent: 'm' },
    ],
  };
  version = { version: '0.29.0' };
  apiKey = undefined;
  silent = false;
  seen.length = 0;
  await listen(0);
});
afterEach(async () => {
  await close();
});

async function listen(at: number): Promise<void> {
  server = createServer((request, response) => {
    seen.push(request.url ?? '');
    if (silent) return;
    if (request.url === '/health') response.writeHead(health).end();
    else if (request.url === '/version') response.end(JSON.stringify(version));
    else if (apiKey !== undefined && request.headers.authorization !== `Bearer ${apiKey}`)
      response.writeHead(401).end('{"error":"Unauthorized"}');
    else response.end(typeof models === 'string' ? models : JSON.stringify(models));
  });
  await new Promise<void>((listening) => server.listen(at, '127.0.0.1', listening));
  port = (server.address() as AddressInfo).port;
  url = `http://127.0.0.1:${port}`;
}

async function close(): Promise<void> {
  server.closeAllConnections();
  await new Promise((closed) => server.close(closed));
}

function make(clock: VirtualClock, changes: VllmHealth[] = [], key?: string): VllmHealthCollector {
  return new VllmHealthCollector({
    url,
    apiKey: key,
    periodMs: 250,
    timeoutMs: 3000,
    dispatcher,
    env: { clock, log: silentLog },
    onChange: (next) => changes.push(next),
  });
}

it('is up with version and models', async () => {
  const changes: VllmHealth[] = [];
  const collector = make(new VirtualClock(), changes);
  expect(collector.state.health).toBe('starting');
  await collector.checkNow();
  expect(collector.state).toEqual({
    health: 'up',
    version: '0.29.0',
    models: [
      { id: 'm', maxModelLen: 4096, parent: undefined },
      { id: 'lora', maxModelLen: undefined, parent: 'm' },
    ],
  });
  await collector.checkNow();
  expect(changes).toHaveLength(1);
  expect(seen.filter((path) => path === '/v1/models')).toHaveLength(1);
});

async function check(collector: VllmHealthCollector, times: number): Promise<string> {
  for (let i = 0; i < times; i++) await collector.checkNow();
  return collector.state.health;
}

it('is down at the second 503 or refused connection in a row, and up again at the second good answer, with fresh models', async () => {
  const changes: VllmHealth[] = [];
  const collector = make(new VirtualClock(), changes);
  await collector.checkNow();
  health = 503;
  expect(await check(collector, 1)).toBe('up');
  expect(collector.goneMs).toBeUndefined();
  expect(await check(collector, 1)).toBe('down');
  expect(collector.goneMs).toBeDefined();
  health = 200;
  models = { data: [{ id: 'other' }] };
  expect(await check(collector, 1)).toBe('down');
  expect(collector.goneMs).toBeUndefined();
  expect(await check(collector, 1)).toBe('up');
  expect(collector.state.models).toMatchObject([{ id: 'other' }]);
  await close();
  // The first may still meet a connection that was open: a reset says nothing.
  expect(await check(collector, 3)).toBe('down');
  await listen(port);
  expect(await check(collector, 2)).toBe('up');
  expect(changes.map((change) => change.health).filter((one, at, all) => one !== all[at - 1])).toEqual([
    'up',
    'down',
    'up',
    'down',
    'up',
  ]);
});

it('another status, or no answer, never takes it out alone: what else comes from the engine decides', async () => {
  const clock = new VirtualClock();
  const collector = make(clock);
  await collector.checkNow();
  const { heardMs } = collector;
  clock.advance(1000);
  health = 500;
  expect(await check(collector, 5)).toBe('up');
  expect(collector.heardMs).toBe(heardMs);
  expect(collector.status().error).toContain('/health answered 500');
  silent = true;
  for (let i = 0; i < 5; i++) {
    const before = seen.length;
    const checking = collector.checkNow();
    while (seen.length === before) await new Promise((resolve) => setImmediate(resolve));
    clock.advance(3000);
    await checking;
  }
  expect(collector.state.health).toBe('up');
  expect(collector.status().error).toContain('did not answer within 3000 ms');
});

it('a model list that is late, unreadable or refused later on changes nothing', async () => {
  const clock = new VirtualClock();
  const collector = make(clock);
  await collector.checkNow();
  models = 'not json';
  clock.advance(5000);
  expect(await check(collector, 1)).toBe('up');
  while (!collector.status().error?.includes('/v1/models')) await new Promise((resolve) => setImmediate(resolve));
  expect(collector.state.models).toHaveLength(2);
});

it('stays starting until the models are known', async () => {
  const collector = make(new VirtualClock());
  models = 'not json';
  await collector.checkNow();
  expect(collector.state.health).toBe('starting');
  expect(collector.status().error).toContain('/v1/models');
  models = { data: [] };
  version = 'none';
  await collector.checkNow();
  expect(collector.state).toEqual({ health: 'up', version: undefined, models: [] });
});

it('says what to do about a missing key', async () => {
  apiKey = 'k';
  const without = make(new VirtualClock());
  await without.checkNow();
  expect(without.status().error).toContain('set the apiKey');
  const collector = make(new VirtualClock(), [], 'k');
  await collector.checkNow();
  expect(collector.state.health).toBe('up');
});

it('asks again at once after a failure, and once more where the engine looks gone', async () => {
  const collector = make(new VirtualClock());
  collector.start();
  await collector.checkNow();
  health = 503;
  collector.noteFailure();
  while (collector.state.health !== 'down') await new Promise((resolve) => setImmediate(resolve));
  expect(seen.filter((path) => path === '/health')).toHaveLength(3);
  collector.stop();
});

it('asks for models every five seconds', async () => {
  const clock = new VirtualClock();
  const collector = make(clock);
  await collector.checkNow();
  clock.advance(4999);
  await collector.checkNow();
  expect(seen.filter((path) => path === '/v1/models')).toHaveLength(1);
  clock.advance(1);
  await collector.checkNow();
  while (seen.filter((path) => path === '/v1/models').length < 2) await new Promise((resolve) => setImmediate(resolve));
});
