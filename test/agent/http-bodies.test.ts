import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { RequestReader } from '../../agent/request/read.ts';
import { signHop } from '../../agent/wire/hop.ts';
import { encodeRead } from '../../agent/request/read-wire.ts';
import type { RunningAgent } from '../../agent/main.ts';
import { TOKEN } from '../helpers/fleet.ts';
import { CHAT, COMPLETIONS, instanceOf, ledgerOf, LinkedFleet, upCount, urlOf } from '../helpers/linked-fleet.ts';
import { RawClient } from '../helpers/raw-client.ts';
import { readRequest } from '../helpers/read-request.ts';
import { StubVllm } from '../helpers/stub-vllm.ts';

const MODEL = 'stub-model';

let fleet: LinkedFleet;
let stub: StubVllm;
let door: RunningAgent;
let entry: RunningAgent;
const clients: RawClient[] = [];

async function start(sets: Record<string, number> = {}): Promise<void> {
  fleet = new LinkedFleet();
  stub = new StubVllm(MODEL);
  const url = await stub.listen();
  door = await fleet.startLinked('door', [url], [], sets);
  entry = await fleet.startLinked('entry', [], [door], sets);
  await fleet.until('up', () => upCount(door) === 1 && upCount(entry) === 1);
}

async function stop(): Promise<void> {
  for (const client of clients.splice(0)) client.socket.destroy();
  await fleet.stop();
  await stub.close();
}

function begin(agent: RunningAgent, bytes: number, first: string, headers: Record<string, string> = {}): RawClient {
  const client = new RawClient(urlOf(agent)).begin(COMPLETIONS, bytes, first, headers);
  clients.push(client);
  return client;
}

const answered = (client: RawClient): Promise<void> => fleet.until('the answer', () => client.received.endsWith('}}'));
const errorOf = ({ json }: RawClient) => (json as { error: { type: string; message: string; code: number } }).error;
const hopTo = (agent: RunningAgent): string =>
  signHop({ instance: instanceOf(agent), entry: 'x', epoch: 1, seq: 0, watched: true }, TOKEN);

describe('limits', () => {
  beforeEach(() => start({ 'agent.maxInFlight': 2, 'agent.bodyTimeoutMs': 5000, 'agent.bodyBudgetBytes': 20_000 }));
  afterEach(stop);

  test('a half-sent body holds a place, is cut in time and frees it', async () => {
    const half = [begin(entry, 1000, '{"model"'), begin(entry, 1000, '')];
    await fleet.until('both are here', () => entry.context.inFlight === 2);
    const third = begin(entry, 1000, '');
    await answered(third);
    expect(errorOf(third)).toMatchObject({
      code: 503,
      message: expect.stringContaining('agent.maxInFlight') as string,
    });
    await fleet.until('they are cut', () => half.every((client) => client.status === 408), 5500);
    expect(entry.context).toMatchObject({ inFlight: 0, bodies: { heldBytes: 0 } });
    await fleet.until('and closed', () => half.every((client) => client.closed), 1500);
    const answer = await fleet.call(urlOf(entry) + COMPLETIONS, {
      body: JSON.stringify({ model: MODEL, prompt: 'x' }),
    });
    expect(answer.status).toBe(200);
  });

  test('a client that leaves in the middle of its body leaves nothing behind', async () => {
    const client = begin(entry, 10_000, '{"model":"m","prompt":"xxxx');
    await fleet.until('it is here', () => entry.context.bodies.heldBytes > 0);
    client.socket.destroy();
    await fleet.until('it is gone', () => entry.context.inFlight === 0);
    expect(entry.context.bodies.heldBytes).toBe(0);
    expect(stub.requests).toEqual([]);
  });

  test('what a request holds counts until it is over, at the entry and at the door', async () => {
    const body = JSON.stringify({ model: MODEL, x: 'x'.repeat(15_000), prompt: 'Hi' });
    let finish = (): void => undefined;
    stub.answer = (_request, response) => (finish = () => response.end('{}'));
    const first = fleet.open(entry, JSON.parse(body) as object);
    await fleet.until('the engine has it', () => stub.requests.length === 1);
    for (const agent of [entry, door]) expect(agent.context.bodies.heldBytes).toBeGreaterThan(15_000);
    for (const [agent, headers] of [
      [entry, {}],
      [door, { 'x-lodestar-hop': hopTo(door) }],
    ] as const) {
      const second = begin(agent, 15_000, '', headers);
      await answered(second);
      expect(errorOf(second)).toMatchObject({
        code: 503,
        message: expect.stringContaining('agent.bodyBudgetBytes') as string,
      });
    }
    finish();
    await fleet.during(first);
    await fleet.until('all is free', () => entry.context.bodies.heldBytes === 0 && door.context.bodies.heldBytes === 0);
  });

  test('a hop is not held to maxInFlight, but to the time for its body', async () => {
    const half = Array.from({ length: 4 }, () => begin(door, 1000, '{', { 'x-lodestar-hop': hopTo(door) }));
    await fleet.until('all are here', () => door.context.bodies.heldBytes >= 4);
    expect(half.map((client) => client.received)).toEqual(['', '', '', '']);
    await fleet.until('they are cut', () => half.every((client) => client.status === 408), 5500);
    expect(door.context).toMatchObject({ inFlight: 0, bodies: { heldBytes: 0 } });
    expect(ledgerOf(door).inFlight).toBe(0);
  });

  test('a hop to an instance that is not here is turned away before its body', async () => {
    const header = signHop({ instance: 'elsewhere', entry: 'x', epoch: 1, seq: 0, watched: true }, TOKEN);
    const client = begin(door, 1000, '', { 'x-lodestar-hop': header });
    await answered(client);
    expect(client.received).toMatch(/x-lodestar-failure: unknown-instance/i);
  });
});

describe('through the door and over a hop', () => {
  beforeAll(() => start());
  afterAll(stop);
  beforeEach(() => {
    stub.requests.length = 0;
    stub.answer = (_request, response) => response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    // Known otherwise from its first stream.
    for (const { local } of door.context.instances.views.values()) if (local) local.usageForced = false;
  });

  const WAYS = [
    ['by function call', () => door],
    ['over a hop', () => entry],
  ] as const;
  const post = (agent: RunningAgent, body: string, headers: Record<string, string> = {}, path = COMPLETIONS) =>
    fleet.call(urlOf(agent) + path, { body, headers });

  test.each(WAYS)('%s: a body of many pieces arrives whole, with the usage asked for', async (_name, agentOf) => {
    const body = `{"model":"${MODEL}","prompt":"${'word '.repeat(100_000)}","stream":true}`;
    expect((await post(agentOf(), body)).status).toBe(200);
    expect(stub.requests[0]?.body).toBe(`{"stream_options":{"include_usage":true},${body.slice(1)}`);
    expect(Number(stub.requests[0]?.headers['content-length'])).toBe(stub.requests[0]?.body.length);
    expect(
      Object.keys(stub.requests[0]?.headers ?? {}).filter(
        (name) => name.startsWith('x-lodestar') || name === 'transfer-encoding',
      ),
    ).toEqual([]);
  });

  test.each(WAYS)("%s: odd bodies get the engine's answer, never an error of ours", async (_name, agentOf) => {
    const odd = '{"toString":1,"valueOf":"x"}';
    const deep = `${'['.repeat(30_000)}${']'.repeat(30_000)}`;
    const bodies = [
      `{"messages":[{"role":${odd},"content":"x"}]}`,
      `{"prompt":${odd}}`,
      `{"prompt":[${odd}]}`,
      `{"prompt":[[${odd}]]}`,
      `{"priority":${odd}}`,
      `{"stream":true,"stream_options":{"x":${deep}}}`,
      `{"stream":true,"stream_options":${deep}}`,
      `{"model":${odd}}`,
      `{"n":${deep}}`,
      `{"user":${odd}}`,
      '{"model":"x',
      '[',
      '',
      '\u0000',
      `{"messages":${deep}}`,
    ];
    for (const body of bodies) {
      const answer = await post(agentOf(), body, {}, CHAT);
      expect(answer.status, body.slice(0, 100)).toBeLessThan(500);
    }
  });

  test.each(['', 'application', 'text/plain; charset', ';', 'application/json; x', 'a/b/c'])(
    "a content type of %j is the engine's to judge",
    async (type) => {
      const answer = await post(entry, `{"model":"${MODEL}","prompt":"x"}`, { 'content-type': type });
      expect(answer.status).toBe(200);
      expect(stub.requests[0]?.headers['content-type'] ?? '').toBe(type);
    },
  );

  test('a form passes byte for byte', async () => {
    const form = `--x\r\ncontent-disposition: form-data; name="model"\r\n\r\n${MODEL}\r\n--x--\r\n`;
    await post(entry, form, { 'content-type': 'multipart/form-data; boundary=x' }, '/v1/audio/transcriptions');
    expect(stub.requests[0]).toMatchObject({ body: form, path: '/v1/audio/transcriptions' });
  });

  test('the door comes to the same prompt as the entry', async () => {
    const body = `{"messages":[{"content":"Hi \\u00fc","role":"user"}],"tools":[{"a" : 1}],"metadata":"${'x'.repeat(300_000)}","model":"${MODEL}"}`;
    const { prompt, promptEnd } = readRequest(CHAT, {}, body);
    expect(promptEnd).toBeLessThan(200);
    const seen: string[] = [];
    const { ledger } = [...door.context.instances.views.values()].find((view) => view.local)!.local!;
    const open = ledger.open.bind(ledger);
    ledger.open = (one) => {
      seen.push(`${one.model} ${one.text.toString()}`);
      return open(one);
    };
    await post(entry, body, {}, CHAT);
    await post(door, body, {}, CHAT);
    ledger.open = open;
    expect(seen).toEqual([`${MODEL} ${prompt.toString()}`, `${MODEL} ${prompt.toString()}`]);
  });

  test('what an entry says that it has read is believed beside a good hop header only', async () => {
    const body = `{"model":"${MODEL}","prompt":"x","stream":true}`;
    const reader = new RequestReader('POST', COMPLETIONS, {});
    reader.push(Buffer.from(body));
    const read = encodeRead({ ...reader.finish([]), usageSplice: { start: 0, end: 0, text: ' ' } })!;
    await post(door, body, { 'x-lodestar-read': read });
    await post(door, body, { 'x-lodestar-read': read, 'x-lodestar-hop': `${hopTo(door)}x` });
    await post(door, body, { 'x-lodestar-read': read, 'x-lodestar-hop': hopTo(door) });
    await post(door, body, { 'x-lodestar-read': 'junk', 'x-lodestar-hop': hopTo(door) });
    const usual = `{"stream_options":{"include_usage":true},${body.slice(1)}`;
    expect(stub.requests.map((one) => one.body)).toEqual([usual, usual, ` ${body}`, usual]);
  });
});
