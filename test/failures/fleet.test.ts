import { afterEach, beforeEach, expect, test } from 'vitest';
import { TestFleet } from '../helpers/fleet.ts';

let fleet: TestFleet;

beforeEach(() => {
  fleet = new TestFleet();
});

afterEach(() => fleet.stop());

const PROMPT = 'Tell me about the north star and how sailors found it. '.repeat(8);

async function startTwo(): Promise<void> {
  await fleet.startBrain();
  for (const id of ['a', 'b']) {
    const engine = await fleet.startEngine();
    await fleet.startAgent(id, [engine.url]);
  }
  await fleet.ready(2);
}

function agent(id: string) {
  const found = fleet.agents.get(id);
  if (!found) throw new Error(`no agent ${id}`);
  return found;
}

test('brain stopped and restarted under load: no failed request, agents reconnect, samples arrive', async () => {
  await startTwo();
  const answers: Promise<{ status: number; text: string; cut: boolean }>[] = [];
  const send = async (n: number): Promise<void> => {
    for (let i = 0; i < n; i++) {
      answers.push(fleet.complete(agent(i % 2 === 0 ? 'a' : 'b'), `${i} ${PROMPT}`));
      await fleet.advance(20);
    }
  };
  await send(10);
  await fleet.stopBrain();
  await send(20);
  expect(agent('a').context.samples.size + agent('b').context.samples.size).toBeGreaterThan(0);
  await fleet.startBrain();
  await send(5);
  const results = await fleet.during(Promise.all(answers));
  expect(results.filter((one) => one.status !== 200 || one.cut || !one.text.includes('[DONE]'))).toEqual([]);
  await fleet.until('all samples acknowledged', () =>
    [...fleet.agents.values()].every(({ context }) => context.samples.size === 0),
  );
  expect([...fleet.agents.values()].every(({ context }) => context.samples.dropped === 0)).toBe(true);
});

test('agent restarted while the brain is away: it routes to the whole fleet on the table on disk', async () => {
  await startTwo();
  await fleet.until('a table is on disk', () => agent('a').context.tables.table !== undefined);
  await fleet.stopBrain();
  await agent('a').close();
  const restarted = await fleet.startAgent('a', []);
  expect(restarted.context.tables.table).toBeDefined();
  await fleet.until('the other door is seen again', () =>
    [...restarted.context.instances.views.values()].some((view) => !view.local && view.report?.health === 'up'),
  );
  const answer = await fleet.during(fleet.complete(restarted, PROMPT));
  expect(answer.status).toBe(200);
  expect(answer.text).toContain('[DONE]');
});

test('engine killed: requests without a first byte succeed elsewhere, those with one end with an error, it leaves within 1 s and returns cleared', async () => {
  await startTwo();
  const [dying] = fleet.engines;
  const instance = [...agent('a').context.instances.views.keys()].find((id) => id.startsWith('a:')) as string;
  const port = Number(new URL(dying!.url).port);
  const answers = Array.from({ length: 12 }, (_, i) => fleet.complete(agent('a'), `${i} ${PROMPT}`, 200));
  await fleet.advance(100);
  // A second wave is on its way to the engine, without a byte yet, when it dies.
  const late = Array.from({ length: 12 }, (_, i) => fleet.complete(agent('a'), `late ${i} ${PROMPT}`, 5));
  await fleet.advance(5);
  const before = agent('a').context.instances.views.get(instance)?.report?.incarnation ?? 0;
  await dying!.close();
  await fleet.advance(1000);
  agent('b').context.instances.readLocal(false);
  expect(agent('b').context.instances.views.get(instance)?.report?.health).not.toBe('up');

  for (const one of await fleet.during(Promise.all(late))) expect(one.text).toContain('[DONE]');
  const results = await fleet.during(Promise.all(answers));
  const broken = results.filter((one) => one.instance === instance);
  expect(broken.length).toBeGreaterThan(0);
  for (const one of broken) expect(one.text.includes('"error"') || one.cut).toBe(true);
  for (const one of results) if (one.instance !== instance) expect(one.text).toContain('[DONE]');

  await fleet.startEngine(port);
  await fleet.ready(2);
  await fleet.until('its view starts anew', () => {
    agent('a').context.instances.readLocal(false);
    return (agent('a').context.instances.views.get(instance)?.report?.incarnation ?? 0) > before;
  });
  const report = agent('a').context.instances.views.get(instance)?.report;
  expect(report?.ledger.inFlight).toBe(0);
  expect(report?.law.samples).toBe(0);
});

test('engine hangs: the wait for the first byte is bounded, and the request moves on', async () => {
  await fleet.startBrain();
  for (const id of ['a', 'b']) {
    const engine = await fleet.startEngine();
    await fleet.startAgent(id, [engine.url], { 'agent.stuckAfterMs': 2000 });
  }
  await fleet.ready(2);
  fleet.engines[0]!.engine.setHung(true);
  const answers = await fleet.during(
    Promise.all(Array.from({ length: 8 }, (_, i) => fleet.complete(agent('a'), `${i} ${PROMPT}`))),
    10_000,
  );
  for (const one of answers) {
    expect(one.status).toBe(200);
    expect(one.text).toContain('[DONE]');
  }
});

test('a door that one entry cannot reach while the brain still sees it: that entry goes elsewhere, others still use it', async () => {
  await fleet.startBrain();
  const engines = [await fleet.startEngine(), await fleet.startEngine()];
  await fleet.startAgent('a', [engines[0]!.url]);
  // Port 1 answers to nobody: what b advertises cannot be reached, though b itself is well and connected.
  await fleet.startAgent('b', [engines[1]!.url], { 'agent.advertiseUrl': 'http://127.0.0.1:1' });
  await fleet.ready(2);
  const viaA = await fleet.during(
    Promise.all(Array.from({ length: 10 }, (_, i) => fleet.complete(agent('a'), `${i} ${PROMPT}`))),
  );
  for (const one of viaA) expect(one).toMatchObject({ status: 200, instance: expect.stringMatching(/^a:/) });
  const viaB = await fleet.during(
    Promise.all(Array.from({ length: 10 }, (_, i) => fleet.complete(agent('b'), `${i} ${PROMPT}`))),
  );
  for (const one of viaB) expect(one.status).toBe(200);
  expect(viaB.some((one) => one.instance?.startsWith('b:'))).toBe(true);
});

test('a newer boot of an agent replaces the old one; a stranger with its id is refused', async () => {
  await startTwo();
  const newer = await fleet.startAgent('a', [fleet.engines[0]!.url]);
  await fleet.until('the newer boot is connected', () => newer.context.tables.table !== undefined);
  const stranger = await fleet.startAgent('a', [], { 'agent.stateDir': `${fleet.dir}/stranger` });
  await fleet.advance(2000);
  expect(stranger.context.tables.table).toBeUndefined();
  await stranger.close();
});

test('a brain that has just started makes nobody forget a live instance: an entry that joins first goes on routing', async () => {
  await fleet.startBrain();
  const engine = await fleet.startEngine();
  await fleet.startAgent('a', [engine.url]);
  const entry = await fleet.startAgent('entry', []);
  await fleet.ready(1);
  await fleet.until(
    'the entry has a table with the roster',
    () => (entry.context.tables.table?.roster.length ?? 0) === 1,
  );
  await fleet.stopBrain();
  // The door stays away from the brain that comes back; its agent goes on serving.
  await fleet.advance(12_000);
  await fleet.startBrain();
  const again = await fleet.startAgent('entry', []);
  await fleet.until('the entry has joined', () => again.context.tables.table !== undefined);
  await fleet.until(
    'the door has been asked',
    () => [...again.context.instances.views.values()].some((view) => view.report?.health === 'up'),
    1000,
  );
  for (let i = 0; i < 10; i++) {
    await fleet.advance(300);
    expect(await fleet.during(fleet.complete(again, `${i} ${PROMPT}`))).toMatchObject({ status: 200 });
  }
  await entry.close();
});
