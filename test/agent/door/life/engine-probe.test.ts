import { realClock } from '../../../../shared/env.ts';
import type { ServerResponse } from 'node:http';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { EngineProbe } from '../../../../agent/door/life/engine-probe.ts';
import { Upstream } from '../../../../agent/wire/upstream.ts';
import { StubVllm } from '../../../helpers/stub-vllm.ts';
import { VirtualClock } from '../../../helpers/virtual-clock.ts';

let clock: VirtualClock;
let engine: StubVllm;
let upstream: Upstream;
let probe: EngineProbe;
let proven: number;
const held: ServerResponse[] = [];
const hold = (_: unknown, response: ServerResponse): void => void held.push(response);
beforeEach(async () => {
  clock = new VirtualClock();
  engine = new StubVllm('m');
  upstream = new Upstream(await engine.listen(), 1000, realClock);
  proven = 0;
  probe = new EngineProbe(clock, upstream, { authorization: 'Bearer key' }, () => void proven++);
});
afterEach(async () => {
  held.length = 0;
  await upstream.close();
  await engine.close();
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** Long enough in turns of the loop for an answer that is there to be read. */
async function turns(): Promise<void> {
  for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve));
}

it('asks for one token of the model, with the key of the engine', async () => {
  probe.ask('m');
  await until(() => proven === 1);
  expect(engine.requests).toHaveLength(1);
  expect(engine.requests[0]).toMatchObject({
    method: 'POST',
    path: '/v1/completions',
    headers: { authorization: 'Bearer key' },
  });
  expect(JSON.parse(engine.requests[0]!.body)).toEqual({ model: 'm', prompt: 'a', max_tokens: 1 });
});

it('at most once a second, and never while it is being answered', async () => {
  engine.answer = hold;
  for (let i = 0; i < 40; i++) {
    probe.ask('m');
    clock.advance(100);
  }
  await until(() => held.length === 1);
  held[0]!.end('{}');
  await until(() => proven === 1);
  for (let i = 0; i < 3; i++) {
    probe.ask('m');
    await until(() => held.length === 2);
  }
  expect(engine.requests).toHaveLength(2);
});

it.each([
  [404, 1],
  [400, 1],
  [500, 0],
  [503, 0],
])('an answer of %i proves it %i times', async (status, times) => {
  let answered = false;
  engine.answer = (_, response) => {
    response.on('close', () => (answered = true));
    response.writeHead(status).end('{}');
  };
  probe.ask('m');
  await until(() => answered);
  await turns();
  expect(proven).toBe(times);
});

it('gives up after five seconds, and asks again', async () => {
  let closed = 0;
  engine.answer = (_, response) => response.on('close', () => closed++);
  probe.ask('m');
  await until(() => engine.requests.length === 1);
  clock.advance(4900);
  await turns();
  expect(closed).toBe(0);
  clock.advance(200);
  // The engine takes it out of its queue when the connection closes.
  await until(() => closed === 1);
  engine.answer = (_, response) => response.end('{}');
  await until(() => {
    probe.ask('m');
    return proven === 1;
  });
  expect(engine.requests).toHaveLength(2);
});
