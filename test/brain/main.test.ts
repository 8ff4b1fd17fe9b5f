import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Brain, startBrain } from '../../brain/main.ts';
import { initialNet } from '../../brain/predictor/model.ts';
import type { Trainer } from '../../brain/train.ts';
import type { Config } from '../../shared/config/index.ts';
import { unpackHashes } from '../../shared/codec.ts';
import { seededRng } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import { GENERIC_LAW } from '../../shared/predictor/step-law.ts';
import { openTable, type RoutingTable, tableNet } from '../../shared/table.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';
import {
  blocks,
  brainConfig,
  FakeTrainer,
  featureRow,
  hello,
  report,
  sample,
  tempDir,
  testEnv,
  TOKEN,
} from './fixtures.ts';
import { TestAgent } from './test-agent.ts';

let dir: ReturnType<typeof tempDir>;
let clock: VirtualClock;
let brain: Brain;

beforeEach(() => {
  dir = tempDir();
  clock = new VirtualClock();
});

afterEach(async () => {
  await brain.close();
  dir.remove();
});

async function start(trainer: Trainer = new FakeTrainer(), more: Partial<Config['brain']> = {}): Promise<void> {
  brain = await startBrain(brainConfig(dir.dir, more), testEnv(clock), trainer);
}

/** Lets frames that were sent arrive, while virtual time passes. */
async function pass(ms: number): Promise<void> {
  await clock.advanceWithIo(ms, Math.max(5, ms / 40));
}

async function nextTable(agent: TestAgent): Promise<RoutingTable> {
  const found = agent.next('table');
  const state = { waiting: true };
  void found.finally(() => (state.waiting = false));
  while (state.waiting) await pass(50);
  return openTable((await found).table);
}

function get(path: string, token: string = TOKEN): Promise<Response> {
  return fetch(brain.url + path, { headers: { authorization: `Bearer ${token}` } });
}

function put(body: unknown): Promise<Response> {
  return fetch(`${brain.url}/lodestar/policy`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
    body: JSON.stringify(body),
  });
}

/** A trainer whose net says log ratio 0.8 for everything. */
function fixedTrainer(): FakeTrainer {
  return new FakeTrainer(async ({ hidden }) => {
    const net = initialNet(
      hidden,
      new Float32Array(FEATURE_COUNT),
      new Float32Array(FEATURE_COUNT).fill(1),
      [0.8, 0.9, 0.8, 0.9],
      seededRng(1),
    );
    return { net, steps: 1, lossBefore: 1, lossAfter: 1 };
  });
}

/** Sends a batch of outcomes at 2.2 times the prior and waits for its ack. */
async function sendSamples(agent: TestAgent, batch: number, n: number): Promise<void> {
  const rng = seededRng(batch);
  const samples = Array.from({ length: n }, () => sample(featureRow({ 6: rng() }), 0.8 + 0.05 * (rng() - 0.5), 0.8));
  agent.send({ t: 'samples', batch, dropped: 0, samples });
  await agent.next('ack', (ack) => ack.batch === batch);
}

describe('a brain', () => {
  it('takes agents in, tells each of the others, and publishes a table with the roster', async () => {
    await start();
    const a = await TestAgent.join(brain.url, hello('a'));
    const b = await TestAgent.join(brain.url, hello('b'));
    a.send({ t: 'telemetry', seq: 0, reports: [report('i', 'a', { law: { ...GENERIC_LAW, c0: 33, samples: 50 } })] });
    a.send(blocks('i', 0, [1, 2, 3], { reset: true }));
    expect([...unpackHashes((await b.next('blocks')).add)]).toEqual([1, 2, 3]);
    const table = await nextTable(b);
    expect(table).toMatchObject({
      version: 1,
      policy: 'learned',
      objective: 'ttft',
      net: null,
      roster: [{ instance: 'i', agent: 'a', doorUrl: 'http://a:8080' }],
    });
    expect(table.trust.verdict).toBe('learning');
    expect((await b.next('state', ({ reports }) => reports.length > 0)).reports[0]?.instance).toBe('i');
    const later = await nextTable(b);
    expect(later.laws.kinds['m A30']?.c0).toBe(33);

    const c = await TestAgent.join(brain.url, hello('c'));
    expect((await c.next('state')).full).toBe(true);
    expect([...unpackHashes((await c.next('blocks')).add)]).toEqual([1, 2, 3]);
    c.send({ t: 'resync', blocks: ['i'] });
    expect((await c.next('state', ({ full }) => full)).reports).toHaveLength(1);
    expect((await c.next('blocks')).reset).toBe(true);
  });

  it('asks the door again for a view that broke off, and passes the whole one on', async () => {
    await start();
    const a = await TestAgent.join(brain.url, hello('a'));
    const b = await TestAgent.join(brain.url, hello('b'));
    a.send({ t: 'telemetry', seq: 0, reports: [report('i', 'a')] });
    a.send(blocks('i', 4, [1]));
    expect((await a.next('resend-blocks')).instance).toBe('i');
    a.send(blocks('i', 5, [7], { reset: true }));
    expect((await b.next('blocks')).seq).toBe(5);
  });

  it('learns, earns trust, and knows all of it after a restart', async () => {
    await start(fixedTrainer());
    const salts = [];
    const a = await TestAgent.connect(brain.url);
    a.send(hello('a'));
    salts.push((await a.next('welcome')).salt);
    a.send({ t: 'telemetry', seq: 0, reports: [report('i', 'a')] });
    await nextTable(a);
    await sendSamples(a, 0, 40);
    await pass(5_500);
    await sendSamples(a, 1, 40);
    let table = await nextTable(a);
    while (table.trust.verdict !== 'trusted') {
      await sendSamples(a, table.version + 10, 20);
      table = await nextTable(a);
    }
    expect(table.net).not.toBeNull();
    const choice = await put({ policy: 'learned', objective: 'e2e' });
    expect(await choice.json()).toMatchObject({
      policy: 'learned',
      objective: 'e2e',
      source: 'operator',
      inForce: 'learned',
    });
    table = await nextTable(a);
    expect(table.weights.decode).toBe(1);
    const before = (await (await get('/lodestar/status')).json()) as {
      learner: { samples: { recency: number } };
      brainEpoch: number;
    };
    await brain.close();
    expect((await a.closed).code).toBe(1001);

    await start(fixedTrainer());
    const again = await TestAgent.connect(brain.url);
    again.send(hello('b'));
    const welcome = await again.next('welcome');
    salts.push(welcome.salt);
    expect(salts[0]).toBe(salts[1]);
    expect(openTable(welcome.table as NonNullable<typeof welcome.table>)).toEqual(table);
    const after = (await (await get('/lodestar/status')).json()) as typeof before & {
      trust: { verdict: string; samples: number };
      policy: object;
    };
    expect(after.brainEpoch).toBeGreaterThan(before.brainEpoch);
    expect(after.learner).toMatchObject({ champion: 'net', samples: { recency: before.learner.samples.recency } });
    expect(after.trust).toMatchObject({ verdict: 'trusted', samples: 0 });
    expect(after.policy).toMatchObject({ objective: 'e2e', source: 'operator' });

    again.send({ t: 'telemetry', seq: 0, reports: [report('j', 'b')] });
    const next = await nextTable(again);
    expect(next.version).toBe(table.version + 1);
    expect(next.roster.map(({ instance }) => instance)).toEqual(['j', 'i']);
    expect(tableNet(next)).toEqual(tableNet(table));
    const stranger = await TestAgent.connect(brain.url);
    stranger.send(hello('a', { credential: 'the-credential-of-a-stranger' }));
    expect((await stranger.next('refuse')).code).toBe('credential');
    await pass(31_000);
    let last = await nextTable(again);
    while (last.roster.some(({ instance }) => instance === 'i')) last = await nextTable(again);
    expect(last.version).toBeGreaterThan(next.version);
  });

  it('says which key to change when its port is taken or its folder cannot be written', async () => {
    await start();
    const { port } = new URL(brain.url);
    const other = tempDir();
    await expect(
      startBrain(brainConfig(other.dir, { port: Number(port) }), testEnv(), new FakeTrainer()),
    ).rejects.toThrow('brain.port');
    await expect(startBrain(brainConfig(fileURLToPath(import.meta.url)), testEnv(), new FakeTrainer())).rejects.toThrow(
      'brain.stateDir',
    );
    other.remove();
  });
});

describe('its routes', () => {
  it('give status and metrics, and take a policy', async () => {
    await start();
    const a = await TestAgent.join(brain.url, hello('a'));
    a.send({ t: 'telemetry', seq: 0, reports: [report('i', 'a')] });
    await nextTable(a);
    const status = await (await get('/lodestar/status')).json();
    expect(status).toMatchObject({
      agents: [{ agent: 'a', connected: true, instances: ['i'] }],
      instances: [{ instance: 'i', health: 'up' }],
      backend: { name: 'cpu', gpu: false },
      policy: { policy: 'learned', source: 'config', inForce: 'learned' },
      table: { version: 1 },
    });
    const metrics = await (await fetch(`${brain.url}/metrics`)).text();
    for (const line of [
      'lodestar_brain_agents 1',
      'lodestar_brain_instances{health="up"} 1',
      'lodestar_brain_table_version 1',
      'lodestar_brain_trusted 0',
      'lodestar_brain_backend_info{name="cpu",gpu="false"} 1',
      'lodestar_brain_tables_published_total 1',
    ]) {
      expect(metrics).toContain(line);
    }
    expect((await put({ policy: 'lmetric' })).status).toBe(200);
    expect(openTable((await a.next('table')).table)).toMatchObject({
      version: 2,
      policy: 'lmetric',
      objective: 'ttft',
    });
  });

  it('need the token, but for health, ready and metrics', async () => {
    await start();
    for (const path of ['/health', '/ready', '/metrics']) expect((await fetch(brain.url + path)).status).toBe(200);
    expect((await get('/lodestar/status', 'the-wrong-token-here')).status).toBe(401);
    const refused = await fetch(`${brain.url}/lodestar/policy`, {
      method: 'PUT',
      body: '{}',
      headers: { 'content-type': 'application/json' },
    });
    expect(refused.status).toBe(401);
    expect(await refused.text()).toContain('authorization: Bearer');
  });

  it('answer bad input with what is wrong, and no stack', async () => {
    await start();
    const cases: [unknown, string][] = [
      [{ policy: 'fastest' }, 'policy: choose one of learned'],
      [{ policy: 'learned', objective: 'x' }, 'objective: choose one of'],
      [{ policy: 'learned', colour: 1 }, 'colour'],
    ];
    for (const [body, message] of cases) {
      const response = await put(body);
      expect(response.status).toBe(400);
      expect(await response.text()).toContain(message);
    }
    const broken = await fetch(`${brain.url}/lodestar/policy`, {
      method: 'PUT',
      body: '{',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TOKEN}` },
    });
    expect(broken.status).toBe(400);
    expect(await broken.text()).not.toContain('at ');
    expect((await get('/nothing')).status).toBe(404);
  });
});
