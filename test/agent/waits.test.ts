import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { RunningAgent } from '../../agent/main.ts';
import type { RunningEmulator } from '../../sim/engine/server.ts';
import { freePort } from '../helpers/free-port.ts';
import { ledgerOf, LinkedFleet, upCount } from '../helpers/linked-fleet.ts';
import { answerJson, StubFleet } from '../helpers/stub-fleet.ts';
import { TcpProxy } from '../helpers/tcp-proxy.ts';

const TOKEN = 'data: {"choices":[{"text":"x"}]}\n\n';
const DONE = 'data: [DONE]\n\n';

describe('how long to wait for an engine', () => {
  let fleet: StubFleet;
  beforeEach(() => {
    fleet = new StubFleet();
  });
  afterEach(() => fleet.stopAll());

  const newest = (count: number) => fleet.agent.context.receipts.newest(count);

  test('150 s of generation without streaming arrive, computed once', async () => {
    await fleet.startStubs(2);
    fleet.answer((_request, response) => void fleet.clock.after(150_000, () => answerJson(response)));
    const asked = fleet.ask();
    await fleet.advance(151_000, 25);
    expect((await asked).status).toBe(200);
    expect(fleet.hits().toSorted()).toEqual([0, 1]);
  });

  test.each([
    ['JavaScript', { 'x-stainless-lang': 'js', 'x-stainless-timeout': '600' }],
    ['Python', { 'x-stainless-lang': 'python', 'x-stainless-read-timeout': '600' }],
  ])('a stream of 650 s with the default headers of the SDK for %s arrives whole', async (_name, headers) => {
    await fleet.startStubs(1);
    fleet.answer((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      let sent = 0;
      const timer = fleet.clock.every(1000, () => {
        response.write(TOKEN);
        sent += 1;
        if (sent < 650) return;
        timer.cancel();
        response.end(DONE);
      });
    });
    const asked = fleet.ask({ stream: true }, { headers });
    await fleet.advance(651_000, 25);
    const answer = await asked;
    expect(answer).toMatchObject({ status: 200, cut: false });
    expect(answer.body).toBe(TOKEN.repeat(650) + DONE);
  });

  test('an SDK that will have left before another answer could begin gets the failure at once', async () => {
    await fleet.startStubs(2);
    fleet.answer((_request, response) => void fleet.clock.after(1500, () => answerJson(response, 500)));
    const asked = fleet.ask({ stream: true }, { headers: { 'x-stainless-timeout': '1' } });
    await fleet.advance(2000);
    expect((await asked).status).toBe(500);
    expect(fleet.hits().toSorted()).toEqual([0, 1]);
  });

  test('an engine that falls silent gets no new requests after 1 s; what waits there without a byte moves after agent.suspectAfterMs', async () => {
    await fleet.startStubs(2);
    fleet.answer((_request, response, stub) => (stub === 0 ? undefined : answerJson(response)));
    const waiting = [fleet.ask(), fleet.ask()];
    await fleet.until('one waits', () => fleet.hits()[0] === 1);
    fleet.stubs[0]!.frozen = true;
    await fleet.advance(1400);
    for (let i = 0; i < 4; i++) expect((await fleet.ask()).status).toBe(200);
    expect(fleet.hits()[0]).toBe(1);
    await fleet.advance(3000);
    for (const asked of waiting) expect((await asked).status).toBe(200);
    expect(newest(10).filter((one) => one.ending === 'silent')).toHaveLength(1);
    fleet.stubs[0]!.frozen = false;
    await fleet.until('it is back', () => fleet.views().every((view) => view.local!.health === 'up'), 5000);
  });

  test('an engine whose checks are late or fail once while tokens flow stays up', async () => {
    await fleet.startStubs(1);
    fleet.answer(({ body }, response) => {
      if (!body.includes('"stream":true')) return answerJson(response);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const timer = fleet.clock.every(50, () => response.write(TOKEN));
      response.on('close', () => timer.cancel());
    });
    const abort = new AbortController();
    const stream = fleet.ask({ stream: true }, { signal: abort.signal });
    await fleet.advance(500);
    fleet.stubs[0]!.checksHang = true;
    for (let i = 0; i < 8; i++) {
      await fleet.advance(500);
      expect((await fleet.ask()).status).toBe(200);
    }
    abort.abort();
    await stream;
  });
});

describe('how long to wait for a link', () => {
  let fleet: LinkedFleet;
  let engine: RunningEmulator;
  let link: TcpProxy;
  let door: RunningAgent;
  let entry: RunningAgent;

  beforeEach(async () => {
    fleet = new LinkedFleet();
    engine = await fleet.startEngine();
    // The entry reaches the door by the proxy alone.
    const port = await freePort();
    link = await TcpProxy.start(`:${port}`);
    door = await fleet.startLinked('door', [engine.url], [], {
      'agent.port': port,
      'agent.advertiseUrl': link.endpoint.replace('tcp', 'http'),
    });
    entry = await fleet.startLinked('entry', [], [{ ...door, port: Number(link.endpoint.split(':').at(-1)) }]);
    await fleet.until('the entry knows the instance', () => upCount(entry) === 1, 5000);
  });
  afterEach(async () => {
    await fleet.stop();
    await link.close();
  });

  const ask = (changes: object = {}) => fleet.open(entry, { stream: true, max_tokens: 20_000, ...changes });

  test("held packets: the client is told within five seconds, the engine's slot is free within twelve", async () => {
    const stream = ask();
    await fleet.until('it runs', () => ledgerOf(door).totals().decoding === 1);
    link.hold();
    const answer = await fleet.during(stream, 5000);
    expect(answer.body).toContain('"error"');
    expect(entry.context.receipts.newest(1)[0]).toMatchObject({ ending: 'link', culprit: 'link' });
    await fleet.until('the slot is free', () => ledgerOf(door).inFlight === 0, 12_000);
  });

  test('an attempt that the door does not hold ends', async () => {
    const stream = ask();
    await fleet.until('it runs', () => ledgerOf(door).totals().decoding === 1);
    // The door forgets it, as one that has restarted has.
    door.local.hops.clear();
    engine.engine.setHung(true);
    const answer = await fleet.during(stream, 5000);
    expect(answer.body).toContain('"error"');
    expect(entry.context.receipts.newest(1)[0]).toMatchObject({ ending: 'link' });
  });

  test('a link that works is left alone, however long an answer takes', async () => {
    const answer = await fleet.during(ask({ max_tokens: 3000 }), 60_000);
    expect(answer).toMatchObject({ status: 200, cut: false });
    expect(answer.body.endsWith('data: [DONE]\n\n')).toBe(true);
  });
});
