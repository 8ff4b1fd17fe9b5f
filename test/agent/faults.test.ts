import { connect } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { answerJson, StubFleet } from '../helpers/stub-fleet.ts';
import { COMPLETIONS } from '../helpers/linked-fleet.ts';

let fleet: StubFleet;
beforeEach(() => {
  fleet = new StubFleet();
});
afterEach(() => fleet.stopAll());

const POISON = 'a request that no engine can answer';
const TOKEN = 'data: {"choices":[{"text":"x"}]}\n\n';
const ERROR_EVENT = 'data: {"error":{"message":"died","type":"InternalServerError","param":null,"code":500}}\n\n';

const newest = (count: number) => fleet.agent.context.receipts.newest(count);
const breakers = () => fleet.views().map((view) => view.breaker.state);

describe('a request that is itself at fault', () => {
  test.each([500, 501, 502])(
    "answered %i wherever it goes: two tries, no breaker, and its error is the engine's own",
    async (status) => {
      await fleet.startStubs(3);
      fleet.answer(({ body }, response) => answerJson(response, body.includes(POISON) ? status : 200));
      // Each engine has answered somebody well.
      for (let i = 0; i < 3; i++) expect((await fleet.ask()).status).toBe(200);
      for (const stub of fleet.stubs) stub.requests.length = 0;
      for (let i = 0; i < 9; i++) {
        const answer = await fleet.ask({ prompt: POISON });
        expect(answer.status).toBe(status);
        expect(answer.body).toContain('"message":"no"');
      }
      expect(fleet.hits().reduce((sum, hits) => sum + hits, 0)).toBe(18);
      expect(breakers()).toEqual(['closed', 'closed', 'closed']);
      expect(new Set(newest(18).map((one) => one.culprit))).toEqual(new Set(['request']));
      for (let i = 0; i < 6; i++) expect((await fleet.ask()).status).toBe(200);
    },
  );

  test('whose stream ends with an error event beside good ones: passed on, no breaker', async () => {
    await fleet.startStubs(2);
    fleet.answer(({ body }, response) => {
      if (!body.includes(POISON)) return answerJson(response);
      response.writeHead(200, { 'content-type': 'text/event-stream' }).end(`${TOKEN}${ERROR_EVENT}data: [DONE]\n\n`);
    });
    for (let i = 0; i < 2; i++) expect((await fleet.ask()).status).toBe(200);
    for (let i = 0; i < 8; i++) {
      expect((await fleet.ask()).status).toBe(200);
      expect((await fleet.ask({ prompt: POISON, stream: true })).body).toContain('"error"');
    }
    expect(breakers()).toEqual(['closed', 'closed']);
  });

  test.each(['500', 'reset', 'error event'])(
    'most engines sick (%s): the well ones answer, and the sick ones are left out',
    async (kind) => {
      await fleet.startStubs(3);
      fleet.answer((_request, response, stub) => {
        if (stub === 2) return answerJson(response);
        if (kind === 'reset') return void response.socket?.destroy();
        if (kind !== 'error event') return answerJson(response, Number(kind));
        response.writeHead(200, { 'content-type': 'text/event-stream' }).write(ERROR_EVENT);
      });
      let failed = 0;
      for (let i = 0; i < 30; i++) if ((await fleet.ask({ stream: true })).status !== 200) failed += 1;
      expect(failed).toBeLessThan(15);
      expect(breakers()[2]).toBe('closed');
      expect(breakers().slice(0, 2)).toEqual(['open', 'open']);
    },
  );

  test.each([401, 403, 404])(
    'one engine that answers %i to what another one answers well gets no traffic',
    async (status) => {
      await fleet.startStubs(2);
      fleet.answer((_request, response, stub) => answerJson(response, stub === 0 ? status : 200));
      for (let i = 0; i < 12; i++) expect((await fleet.ask()).status).toBe(200);
      expect(fleet.hits()[0]).toBe(3);
      fleet.answer((_request, response) => answerJson(response, status));
      expect((await fleet.ask()).status).toBe(status);
    },
  );

  test('an engine that fails what others answer is at fault: its breaker opens, and clients notice nothing', async () => {
    await fleet.startStubs(2);
    fleet.answer((_request, response, stub) => answerJson(response, stub === 0 ? 500 : 200));
    for (let i = 0; i < 8; i++) expect((await fleet.ask()).status).toBe(200);
    expect(breakers()).toEqual(['open', 'closed']);
    expect(
      newest(20)
        .filter((one) => one.culprit === 'engine')
        .map((one) => one.ending),
    ).toEqual(['server-error', 'server-error', 'server-error']);
  });

  test('where every breaker is open they are ignored, and the decision says so', async () => {
    await fleet.startStubs(2);
    for (const view of fleet.views()) for (let i = 0; i < 3; i++) view.breaker.fail();
    expect(breakers()).toEqual(['open', 'open']);
    fleet.answer((_request, response) => answerJson(response));
    expect((await fleet.ask()).status).toBe(200);
    expect(newest(1)[0]?.reason).toBe('config, breakers relaxed');
  });
});

describe('a full instance', () => {
  test.each([
    [429, '3'],
    [503, '2'],
  ])('%i: another one answers, and it is left alone for its retry-after', async (status, retryAfter) => {
    await fleet.startStubs(2);
    fleet.answer((_request, response, stub) =>
      answerJson(response, stub === 0 ? status : 200, { 'retry-after': retryAfter }),
    );
    for (let i = 0; i < 6; i++) expect((await fleet.ask()).status).toBe(200);
    expect(fleet.hits()[0]).toBe(1);
    expect(breakers()).toEqual(['closed', 'closed']);
    await fleet.advance(Number(retryAfter) * 1000);
    for (let i = 0; i < 2; i++) await fleet.ask();
    expect(fleet.hits()[0]).toBe(2);
    const refused = newest(20).filter((one) => one.ending === 'full');
    expect(refused.map((one) => [one.culprit, one.status, one.ttftMs])).toEqual(
      refused.map(() => ['nobody', 'failed', undefined]),
    );
  });

  test('all are full: the status is passed on with the longest retry-after that is known', async () => {
    await fleet.startStubs(3);
    const seconds = ['2', '7', '4'];
    fleet.answer((_request, response, stub) => answerJson(response, 429, { 'retry-after': seconds[stub] as string }));
    const answer = await fleet.ask();
    expect(answer).toMatchObject({ status: 429, headers: { 'retry-after': '7' } });
    expect(fleet.hits()).toEqual([1, 1, 1]);
  });

  test('an error body that is too long to keep is replaced, not cut', async () => {
    await fleet.startStubs(1);
    fleet.answer((_request, response) =>
      response.writeHead(500, { 'content-type': 'text/plain' }).end('x'.repeat(2 * 1024 * 1024)),
    );
    const answer = await fleet.ask();
    expect(answer).toMatchObject({ status: 500, cut: false });
    expect(JSON.parse(answer.body)).toMatchObject({ error: { code: 500, type: 'UpstreamError' } });
    fleet.answer((_request, response) =>
      response.writeHead(500, { 'content-type': 'text/plain' }).end('y'.repeat(300_000)),
    );
    expect((await fleet.ask()).body).toBe('y'.repeat(300_000));
  });
});

describe('connections', () => {
  test('one that was used before and breaks ahead of the answer is tried once more, on a fresh one', async () => {
    await fleet.startStubs(1);
    let broken = 0;
    fleet.answer(({ body }, response) => {
      if (!body.includes('break') || broken > 0) return answerJson(response);
      broken += 1;
      response.socket?.destroy();
    });
    expect((await fleet.ask()).status).toBe(200);
    expect((await fleet.ask({ prompt: 'break' })).status).toBe(200);
    expect(broken).toBe(1);
    expect(newest(1)[0]).toMatchObject({ culprit: 'nobody', attempt: 0 });
  });

  test('what many pipelined requests of one connection left behind ends with the connection', async () => {
    await fleet.startStubs(1);
    fleet.answer(
      (_request, response) => void response.writeHead(200, { 'content-type': 'text/event-stream' }).write(TOKEN),
    );
    const body = JSON.stringify({ model: 'stub-model', prompt: 'x', stream: true });
    const request = `POST ${COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
    const socket = connect(fleet.agent.port, '127.0.0.1', () => void socket.write(request.repeat(30)));
    socket.on('error', () => undefined);
    const ledger = fleet.views()[0]!.local!.ledger;
    await fleet.until('all run', () => ledger.inFlight === 30);
    socket.destroy();
    await fleet.until('all have ended', () => ledger.inFlight === 0 && fleet.agent.context.inFlight === 0, 100);
    expect(new Set(newest(30).map((one) => one.culprit))).toEqual(new Set(['client']));
  });

  test('an exception while a request is sent is a failed attempt of ours', async () => {
    await fleet.startStubs(2);
    fleet.answer((_request, response) => answerJson(response));
    const { upstream } = fleet.views()[0]!.local!;
    upstream.dispatch = () => {
      throw new TypeError('no such protocol');
    };
    for (let i = 0; i < 4; i++) expect((await fleet.ask()).status).toBe(200);
    expect(
      newest(10)
        .filter((one) => one.ending === 'own-fault')
        .map((one) => one.culprit),
    ).toEqual(['ourselves', 'ourselves', 'ourselves', 'ourselves']);
    expect(fleet.views().map((view) => [view.local!.ledger.inFlight, view.breaker.state])).toEqual([
      [0, 'closed'],
      [0, 'closed'],
    ]);
  });
});

describe('a client that does not read', () => {
  test('pauses its engine without blame, and is ended after agent.slowClientTimeoutMs', async () => {
    await fleet.startStubs(1, { 'agent.slowClientTimeoutMs': 5000, 'agent.stuckAfterMs': 1000 });
    const flood = `data: {"choices":[{"text":"${'x'.repeat(60_000)}"}]}\n\n`;
    fleet.answer(({ body }, response) => {
      if (!body.includes('"stream":true')) return answerJson(response);
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      const more = (): void => {
        while (response.write(flood));
      };
      response.on('drain', more);
      more();
    });
    const body = JSON.stringify({ model: 'stub-model', prompt: 'x', stream: true });
    const socket = connect(fleet.agent.port, '127.0.0.1', () => {
      socket.pause();
      socket.write(
        `POST ${COMPLETIONS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
      );
    });
    socket.on('error', () => undefined);
    const { ledger } = fleet.views()[0]!.local!;
    await fleet.until('it runs', () => ledger.inFlight === 1);
    await fleet.advance(4000);
    expect(ledger.inFlight).toBe(1);
    expect((await fleet.ask()).status).toBe(200);
    await fleet.until('it has ended', () => ledger.inFlight === 0, 3000);
    expect(newest(1)[0]).toMatchObject({ culprit: 'client', ending: 'client-stalled', status: 'aborted' });
    expect(breakers()).toEqual(['closed']);
    socket.destroy();
  });
});
