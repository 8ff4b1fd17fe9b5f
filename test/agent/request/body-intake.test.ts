import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Watchdog, type Watched } from '../../../agent/entry/watchdog.ts';
import { BodyIntake, type BodyLimits, type Refusal, type TakenRequest } from '../../../agent/request/body-intake.ts';
import { RequestReader } from '../../../agent/request/read.ts';
import { turnAway } from '../../../agent/wire/turn-away.ts';
import { RawClient } from '../../helpers/raw-client.ts';
import { VirtualClock } from '../../helpers/virtual-clock.ts';

const PATH = '/v1/completions';
const LIMITS: BodyLimits = { bodyLimitBytes: 1_000_000, bodyTimeoutMs: 30_000, bodyBudgetBytes: 1_500_000 };

let clock: VirtualClock;
let watchdog: Watchdog;
let intake: BodyIntake;
let server: Server;
let url: string;
let results: (TakenRequest | Refusal | undefined)[];
/** bodies on their way in */
const waits = new Set<Watched>();
const clients: RawClient[] = [];

beforeEach(async () => {
  clock = new VirtualClock();
  watchdog = new Watchdog(clock);
  waits.clear();
  intake = new BodyIntake(LIMITS, clock, {
    add: (one) => {
      waits.add(one);
      watchdog.add(one);
    },
    remove: (one) => {
      waits.delete(one);
      watchdog.remove(one);
    },
  });
  results = [];
  server = createServer((request, response) => {
    void intake.take(request, new RequestReader('POST', PATH, request.headers)).then((result) => {
      results.push(result);
      if (result && 'status' in result) turnAway(clock, request, response, result);
      else if (result) response.end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

afterEach(async () => {
  for (const client of clients.splice(0)) client.socket.destroy();
  watchdog.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

function open(bytes: number, first: string | Buffer, headers: Record<string, string> = {}): RawClient {
  const client = new RawClient(url).begin(PATH, bytes, first, headers);
  clients.push(client);
  return client;
}

/** Real I/O goes on, and no virtual time passes. */
async function until(condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 100_000; turn++) {
    if (condition()) return;
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('not in time');
}

const taken = (at: number): TakenRequest => results[at] as TakenRequest;
const errorOf = (client: RawClient) =>
  (client.json as { error: { type: string; message: string; code: number } }).error;

test('a body is read as it comes and counted until its request is over', async () => {
  const body = `{"model":"m","prompt":"${'x'.repeat(200_000)}"}`;
  const client = open(body.length, body.slice(0, 100_000));
  await until(() => intake.heldBytes >= 100_000);
  expect(results).toEqual([]);
  client.socket.write(body.slice(100_000));
  await until(() => results.length === 1);
  const { client: request, release } = taken(0);
  expect(request).toMatchObject({ model: 'm', promptBytes: 200_000 });
  expect(Buffer.concat(request.body).toString()).toBe(body);
  expect(intake.heldBytes).toBeGreaterThanOrEqual(400_000);
  release();
  release();
  expect(intake.heldBytes).toBe(0);
});

test('a request without a body waits for none', async () => {
  open(0, '');
  await until(() => results.length === 1);
  expect(taken(0).client.body).toEqual([]);
});

describe('size', () => {
  test('a stated length over the limit is refused before a byte is read', async () => {
    const client = open(LIMITS.bodyLimitBytes + 1, '');
    await until(() => client.received.includes('}}'));
    expect(errorOf(client)).toMatchObject({
      code: 413,
      message: expect.stringContaining('agent.bodyLimitBytes') as string,
    });
    // The client may go on for a while, or it would never see the answer.
    expect(client.closed).toBe(false);
    client.socket.write(Buffer.alloc(300_000));
    clock.advance(1000);
    await until(() => client.closed);
    expect(intake.heldBytes).toBe(0);
  });

  test('a body of no stated length is refused when it has become too large', async () => {
    const client = new RawClient(url);
    clients.push(client);
    client.socket.write(`POST ${PATH} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n`);
    for (let sent = 0; sent < 1_100_000; sent += 65_536)
      client.socket.write(Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65_536, 32), Buffer.from('\r\n')]));
    await until(() => client.received.includes('}}'));
    expect(client.status).toBe(413);
    expect(intake.heldBytes).toBe(0);
  });

  test('a client that has sent all that it wanted gets its connection closed at once', async () => {
    const client = new RawClient(url);
    clients.push(client);
    client.socket.write(`POST ${PATH} HTTP/1.1\r\nhost: test\r\ncontent-length: ${LIMITS.bodyLimitBytes + 1}\r\n\r\n`);
    client.socket.write(Buffer.alloc(LIMITS.bodyLimitBytes + 1));
    await until(() => client.closed);
    expect(client.status).toBe(413);
  });
});

describe('time', () => {
  test('a half-sent body is cut when nothing more comes', async () => {
    const client = open(1000, '{"model":');
    await until(() => intake.heldBytes > 0);
    clock.advance(29_900);
    expect(results).toEqual([]);
    clock.advance(200);
    await until(() => client.received.includes('}}'));
    expect(errorOf(client)).toMatchObject({
      code: 408,
      message: expect.stringContaining('agent.bodyTimeoutMs') as string,
    });
    clock.advance(1000);
    await until(() => client.closed);
    expect(intake.heldBytes).toBe(0);
  });

  test('so is one of which no byte comes', async () => {
    const client = open(1000, '');
    await until(() => waits.size === 1);
    clock.advance(30_100);
    await until(() => client.status === 408);
  });

  test('a byte now and then does not keep a place', async () => {
    const client = open(1000, '{');
    await until(() => intake.heldBytes > 0);
    for (let round = 0; round < 2 && client.received === ''; round++) {
      clock.advance(20_000);
      const before = intake.heldBytes;
      client.socket.write(' '.repeat(2));
      await until(() => intake.heldBytes > before || client.received !== '');
    }
    await until(() => client.status === 408);
    expect(clock.nowMs()).toBeLessThanOrEqual(40_000);
  });

  test('a large body that keeps coming has the time that it needs', async () => {
    const client = open(900_000, Buffer.alloc(100_000, 32));
    for (let sent = 200_000; sent <= 900_000; sent += 100_000) {
      await until(() => intake.heldBytes >= sent - 100_000);
      clock.advance(20_000);
      client.socket.write(Buffer.alloc(100_000, 32));
    }
    await until(() => results.length === 1);
    expect(taken(0).client.body.reduce((sum, piece) => sum + piece.length, 0)).toBe(900_000);
  });
});

describe('memory', () => {
  test('a body that does not fit beside those held is refused before it is read, and taken when they are over', async () => {
    const body = Buffer.alloc(900_000, 32);
    open(body.length, body);
    await until(() => results.length === 1);
    const refused = open(body.length, '');
    await until(() => refused.received.includes('}}'));
    expect(errorOf(refused)).toMatchObject({
      code: 503,
      message: expect.stringContaining('agent.bodyBudgetBytes') as string,
    });
    expect(refused.received).toMatch(/retry-after: 1/i);
    taken(0).release();
    open(body.length, body);
    await until(() => results.length === 3);
    expect(taken(2).client.body.length).toBeGreaterThan(0);
  });

  test('two that fit only one by one: the one that gets there last is refused, whatever they stated', async () => {
    const body = Buffer.alloc(900_000, 32);
    const both = [open(body.length, body.subarray(0, 10)), open(body.length, body.subarray(0, 10))];
    await until(() => intake.heldBytes >= 20);
    for (const client of both) client.socket.write(body.subarray(10));
    await until(() => results.length === 2);
    expect(results.map((result) => (result && 'status' in result ? result.status : 200)).toSorted()).toEqual([
      200, 503,
    ]);
  });

  test('the prompt that is read out of a body counts, too', async () => {
    const body = `{"messages":[${'{},'.repeat(150_000)}{}]}`;
    open(body.length, body);
    await until(() => results.length === 1);
    expect(results[0]).toMatchObject({ status: 503 });
    expect(intake.heldBytes).toBe(0);
  });

  test('many half-sent bodies hold what has come of them, and are all cut', async () => {
    const many = Array.from({ length: 300 }, () => open(100_000, `{"model":"${'m'.repeat(500)}`));
    await until(() => waits.size === 300 && intake.heldBytes >= 300 * 510);
    expect(intake.heldBytes).toBeLessThan(300 * 2000);
    clock.advance(30_100);
    await until(() => many.every((client) => client.status === 408));
    expect(intake.heldBytes).toBe(0);
    clock.advance(1000);
    await until(() => many.every((client) => client.closed));
  });

  test('a client that leaves takes its bytes with it', async () => {
    const client = open(500_000, Buffer.alloc(100_000, 32));
    await until(() => intake.heldBytes >= 100_000);
    client.socket.destroy();
    await until(() => results.length === 1);
    expect([results[0], intake.heldBytes, waits.size]).toEqual([undefined, 0, 0]);
  });
});

test('reading takes a share of each turn of the loop and no more', async () => {
  const log: string[] = [];
  const request = { pause: () => log.push('pause'), resume: () => log.push('resume') } as unknown as IncomingMessage;
  for (let round = 0; round < 2; round++) intake.spent(0, 65_536, request);
  expect(log).toEqual(['pause']);
  await new Promise((resolve) => setImmediate(resolve));
  expect(log).toEqual(['pause', 'resume']);
  intake.spent(5, 1, request);
  expect(log).toEqual(['pause', 'resume', 'pause']);
});
