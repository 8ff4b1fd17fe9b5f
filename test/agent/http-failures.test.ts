import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FAULTS_PATH } from '../../sim/engine/http/faults.ts';
import type { RunningEmulator } from '../../sim/engine/server.ts';
import { type HttpAnswer, send } from '../helpers/http.ts';
import {
  completion,
  COMPLETIONS,
  instanceOf,
  ledgerOf,
  LinkedFleet,
  type Pair,
  upCount,
  urlOf,
} from '../helpers/linked-fleet.ts';

let fleet: LinkedFleet;
beforeEach(() => {
  fleet = new LinkedFleet();
});
afterEach(() => fleet.stop());

const LONG = { max_tokens: 2000, stream: true };

async function fault(engine: RunningEmulator, body: object): Promise<void> {
  expect((await fleet.call(engine.url + FAULTS_PATH, { body: JSON.stringify(body) })).status).toBe(200);
}

function errorOf(answer: HttpAnswer): { type: string; code: number; message: string } {
  return (JSON.parse(answer.body) as { error: { type: string; code: number; message: string } }).error;
}

/**
 * Opens one completion on each instance of the pair, which the entry takes in turn; resolves once both engines have
 * them.
 */
async function onePerInstance({ near, far, entry }: Pair, changes: object): Promise<Promise<HttpAnswer>[]> {
  const open = [fleet.open(entry, changes), fleet.open(entry, changes)];
  await fleet.until('one request on each engine', () => near.engine.inFlight === 1 && far.engine.inFlight === 1);
  return open;
}

describe('a client that leaves', () => {
  test.each([
    ['a stream', LONG],
    ['a plain answer', { max_tokens: 2000 }],
  ])(
    '%s: its request leaves the engine at once, through the door and over a hop, and frees the ledger',
    async (_name, changes) => {
      const pair = await fleet.startPair();
      const abort = new AbortController();
      const open = [0, 1].map(() => fleet.open(pair.entry, changes, { signal: abort.signal }));
      await fleet.until(
        'both run',
        () => pair.near.engine.gauges.running === 1 && pair.far.engine.gauges.running === 1,
      );
      expect([ledgerOf(pair.entry).inFlight, ledgerOf(pair.door).inFlight]).toEqual([1, 1]);
      abort.abort();
      await fleet.until(
        'both are gone',
        () => pair.near.engine.gauges.running === 0 && pair.far.engine.gauges.running === 0,
        50,
      );
      await fleet.until(
        'the ledgers are free',
        () =>
          pair.entry.context.inFlight === 0 &&
          ledgerOf(pair.entry).inFlight === 0 &&
          ledgerOf(pair.door).inFlight === 0,
        50,
      );
      await Promise.all(open);
      expect([ledgerOf(pair.entry).totals().usedTokens, ledgerOf(pair.door).totals().usedTokens]).toEqual([0, 0]);
      for (const view of pair.entry.context.instances.views.values())
        expect(view).toMatchObject({ reservations: [], breaker: { state: 'closed' } });
      expect(pair.entry.context.receipts.newest(2).map((one) => one.status)).toEqual(['aborted', 'aborted']);
    },
  );
});

describe('an engine that fails', () => {
  test('killed before the first byte: its requests succeed elsewhere', async () => {
    const pair = await fleet.startPair();
    pair.near.engine.setHung(true);
    const open = await onePerInstance(pair, { stream: true });
    await fault(pair.near, { kind: 'die' });
    const answers = await fleet.during(Promise.all(open), 200_000);
    for (const answer of answers) {
      expect(answer).toMatchObject({ status: 200, cut: false });
      expect(answer.body).toContain('[DONE]');
      expect(answer.headers['x-lodestar-instance']).toBe(instanceOf(pair.door));
    }
    await fleet.until('the dead one has left', () => upCount(pair.entry) === 1, 1000);
  });

  test.each(['near', 'far'] as const)(
    'its core dies before the first token (%s): the error event inside the 200 is not passed on, another answers',
    async (which) => {
      const pair = await fleet.startPair();
      pair[which].engine.setHung(true);
      const open = await onePerInstance(pair, { stream: true });
      await fault(pair[which], { kind: 'engine-death' });
      for (const answer of await fleet.during(Promise.all(open), 200_000)) {
        expect(answer.status).toBe(200);
        expect(answer.body).not.toContain('error');
        expect(answer.body).toContain('[DONE]');
      }
    },
  );

  test.each(['near', 'far'] as const)(
    'cut in the middle of a stream (%s): the client gets an error event',
    async (which) => {
      const pair = await fleet.startPair();
      await fault(pair[which], { kind: 'drop-after-chunks', chunks: 3 });
      const answers = await fleet.during(
        Promise.all(await onePerInstance(pair, { stream: true, max_tokens: 50 })),
        200_000,
      );
      const broken = answers.filter((answer) => answer.body.includes('"error"'));
      expect(broken).toHaveLength(1);
      expect(broken[0]).toMatchObject({ status: 200, cut: false });
      expect(broken[0]?.body).toMatch(
        /data: \{"error":\{"message":"[^"]+","type":"BadGatewayError","param":null,"code":502\}\}\n\ndata: \[DONE\]\n\n$/,
      );
      expect(ledgerOf(pair.entry).inFlight + ledgerOf(pair.door).inFlight).toBe(0);
    },
  );

  test('its own 500 or 503 is tried elsewhere, and passed on when it is the last word', async () => {
    const pair = await fleet.startPair();
    await fault(pair.near, { kind: 'status', status: 500 });
    for (let i = 0; i < 2; i++)
      expect((await fleet.call(urlOf(pair.entry) + COMPLETIONS, { body: JSON.stringify(completion()) })).status).toBe(
        200,
      );
    await fault(pair.far, { kind: 'status', status: 503 });
    const answer = await fleet.call(urlOf(pair.entry) + COMPLETIONS, { body: JSON.stringify(completion()) });
    expect(answer.status).toBe(503);
    expect(answer.headers['x-emulated']).toBe('lodestar');
    await fault(pair.near, { kind: 'clear' });
    await fault(pair.far, { kind: 'clear' });
  });

  test('the only one answers 500: the client gets that answer; it hangs: 504', async () => {
    const engine = await fleet.startEngine();
    const agent = await fleet.startLinked('only', [engine.url], [], { 'agent.stuckAfterMs': 1000 });
    await fleet.until('up', () => upCount(agent) === 1);
    await fault(engine, { kind: 'status', status: 500 });
    const refused = await fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) });
    expect(refused.status).toBe(500);
    expect(refused.headers['x-emulated']).toBe('lodestar');
    await fault(engine, { kind: 'clear' });
    await fault(engine, { kind: 'hang', scope: 'engine' });
    const hung = await fleet.during(
      fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) }),
      10_000,
    );
    expect(hung.status).toBe(504);
  });

  test('all are gone: 503 with Retry-After, and the instance serves again once it is back', async () => {
    const engine = await fleet.startEngine();
    const agent = await fleet.startLinked('only', [engine.url], []);
    await fleet.until('up', () => upCount(agent) === 1);
    await engine.close();
    await fleet.until('down', () => upCount(agent) === 0, 1000);
    const answer = await fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) });
    expect(answer.status).toBe(503);
    expect(answer.headers['retry-after']).toBe('1');
    expect(errorOf(answer)).toMatchObject({ type: 'ServiceUnavailableError', code: 503 });
    expect((await fleet.call(`${urlOf(agent)}/ready`)).status).toBe(503);
    expect((await fleet.call(`${urlOf(agent)}/health`)).status).toBe(200);
    await fleet.startEngine(Number(new URL(engine.url).port));
    await fleet.until('up again', () => upCount(agent) === 1);
    expect((await fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) })).status).toBe(200);
  });
});

/** The door asks an engine in doubt for a token of its own. */
const PROBE = 1;

describe('an engine that hangs', () => {
  const sets = { 'agent.stuckAfterMs': 1500 };

  test('without a first byte: another answers in time; if all hang, 504', async () => {
    const pair = await fleet.startPair(sets);
    pair.far.engine.setHung(true);
    for (let i = 0; i < 2; i++) {
      const startMs = fleet.clock.nowMs();
      const answer = await fleet.call(urlOf(pair.entry) + COMPLETIONS, {
        body: JSON.stringify(completion({ stream: true })),
      });
      expect(answer).toMatchObject({ status: 200, headers: { 'x-lodestar-instance': instanceOf(pair.entry) } });
      expect(fleet.clock.nowMs() - startMs).toBeLessThan(2500);
    }
    await fleet.until(
      'what hung was aborted',
      () => pair.far.engine.inFlight <= PROBE && ledgerOf(pair.door).inFlight === 0,
      1000,
    );
    pair.near.engine.setHung(true);
    const answer = await fleet.call(urlOf(pair.entry) + COMPLETIONS, {
      body: JSON.stringify(completion({ stream: true })),
    });
    expect([503, 504]).toContain(answer.status);
    await fleet.until('all was aborted', () => pair.near.engine.inFlight + pair.far.engine.inFlight <= 2 * PROBE, 1000);
  });

  test('a single one: 504 after the time limit, its request aborted', async () => {
    const engine = await fleet.startEngine();
    const agent = await fleet.startLinked('only', [engine.url], [], { ...sets, 'agent.retries': 0 });
    await fleet.until('up', () => upCount(agent) === 1);
    engine.engine.setHung(true);
    const startMs = fleet.clock.nowMs();
    const answer = await fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) });
    expect(answer.status).toBe(504);
    expect(errorOf(answer).type).toBe('GatewayTimeoutError');
    expect(fleet.clock.nowMs() - startMs).toBeGreaterThanOrEqual(1500);
    await fleet.until('aborted', () => engine.engine.inFlight <= PROBE && ledgerOf(agent).inFlight === 0, 1000);
  });

  test('in the middle of a stream: the silence is bounded and the client is told', async () => {
    const pair = await fleet.startPair(sets);
    const open = await onePerInstance(pair, LONG);
    await fleet.advance(200);
    pair.near.engine.setHung(true);
    pair.far.engine.setHung(true);
    for (const answer of await fleet.during(Promise.all(open), 20_000)) {
      expect(answer).toMatchObject({ status: 200, cut: false });
      expect(answer.body).toContain('The instance broke off in the middle of its answer.');
    }
    // Over the hop, too, the entry knows why.
    expect(pair.entry.context.receipts.newest(2).map((one) => [one.ending, one.culprit])).toEqual([
      ['stuck', 'engine'],
      ['stuck', 'engine'],
    ]);
  });
});

describe('draining', () => {
  test('running streams end, new requests are refused, then the agent is gone', async () => {
    const engine = await fleet.startEngine();
    const agent = await fleet.startLinked('only', [engine.url], []);
    await fleet.until('up', () => upCount(agent) === 1);
    const running = fleet.open(agent, { stream: true, max_tokens: 300 });
    await fleet.until('it runs', () => engine.engine.gauges.running === 1);
    const drained = agent.drain();
    await fleet.advance(100);
    expect((await fleet.call(`${urlOf(agent)}/ready`)).status).toBe(503);
    const refused = await fleet.call(urlOf(agent) + COMPLETIONS, { body: JSON.stringify(completion()) });
    expect(refused.status).toBe(503);
    expect(refused.headers['retry-after']).toBe('1');
    const answer = await fleet.during(running, 200_000);
    expect(answer).toMatchObject({ status: 200, cut: false });
    expect(answer.body.split('\n\n').filter((event) => event.includes('"text"'))).toHaveLength(300);
    await fleet.during(drained, 200_000);
    expect((await send(`${urlOf(agent)}/health`)).status).toBe(0);
  });

  test('a draining entry still sends new requests to the others; others send none to it, but what they sent ends', async () => {
    const pair = await fleet.startPair();
    const open = await onePerInstance(pair, { stream: true, max_tokens: 300 });
    const drained = pair.door.drain();
    await fleet.until(
      'the entry knows',
      () => [...pair.entry.context.instances.views.values()].some((view) => view.report?.draining === true),
      2000,
    );
    for (let i = 0; i < 3; i++) {
      const answer = await fleet.call(urlOf(pair.entry) + COMPLETIONS, { body: JSON.stringify(completion()) });
      expect(answer).toMatchObject({ status: 200, headers: { 'x-lodestar-instance': instanceOf(pair.entry) } });
    }
    for (const answer of await fleet.during(Promise.all(open), 200_000)) {
      expect(answer).toMatchObject({ status: 200, cut: false });
      expect(answer.body).not.toContain('error');
    }
    await fleet.during(drained, 200_000);
  });

  test('a stream that does not end is cut when the time is up', async () => {
    const engine = await fleet.startEngine();
    const agent = await fleet.startLinked('only', [engine.url], [], { 'agent.drainTimeoutMs': 500 });
    await fleet.until('up', () => upCount(agent) === 1);
    const running = fleet.open(agent, { stream: true, max_tokens: 20_000 });
    await fleet.until('it runs', () => engine.engine.gauges.running === 1);
    await fleet.during(agent.drain(), 20_000);
    expect((await fleet.during(running)).cut).toBe(true);
    await fleet.until('aborted', () => engine.engine.inFlight === 0, 100);
  });
});
