import { afterEach, beforeEach, expect, test } from 'vitest';
import { LinkedFleet, upCount } from '../../helpers/linked-fleet.ts';
import type { RunningAgent } from '../../../agent/main.ts';

let fleet: LinkedFleet;
beforeEach(() => {
  fleet = new LinkedFleet();
});
afterEach(() => fleet.stop());

const PROMPT = 'the north star and how sailors found it '.repeat(20);
const doorOf = (agent: RunningAgent) => [...agent.context.instances.views.values()][0]!.local!;

test('an engine that restarts is a new incarnation without cache, law or requests; its door goes on', async () => {
  const engine = await fleet.startEngine();
  const agent = await fleet.startLinked('a', [engine.url], []);
  await fleet.until('up', () => upCount(agent) === 1);
  for (let i = 0; i < 5; i++) await fleet.during(fleet.complete(agent, `${PROMPT}${i}`, 40));
  await fleet.advance(1500);
  const before = doorOf(agent).report(false);
  expect(before.law.samples).toBeGreaterThan(0);
  expect(doorOf(agent).cache.blockCount).toBeGreaterThan(0);
  expect(agent.context.instances.index.blocksOf(before.instance)).toBeGreaterThan(0);
  await engine.close();
  await fleet.until('down', () => upCount(agent) === 0);
  await fleet.advance(1100);
  await fleet.startEngine(Number(new URL(engine.url).port));
  await fleet.until('a new incarnation', () => doorOf(agent).report(false).incarnation > before.incarnation);
  await fleet.advance(400);
  const after = doorOf(agent).report(false);
  expect(after).toMatchObject({ health: 'up', ledger: { inFlight: 0, usedTokens: 0 }, law: { samples: 0 } });
  expect(after.seq).toBeGreaterThan(before.seq);
  expect(agent.context.instances.index.blocksOf(before.instance)).toBe(0);
  expect((await fleet.during(fleet.complete(agent, PROMPT))).status).toBe(200);
});

test('an agent that restarts after its wall clock went back is still the newer one', async () => {
  const engine = await fleet.startEngine();
  const first = await fleet.startLinked('a', [engine.url], []);
  const { incarnation } = doorOf(first).report(false);
  await first.close();
  const { clock } = fleet;
  const wallMs = clock.wallMs.bind(clock);
  clock.wallMs = () => wallMs() - 3_600_000;
  const second = await fleet.startAgent('a', [engine.url]);
  expect(doorOf(second).report(false).incarnation).toBeGreaterThan(incarnation);
  expect(second.context.epoch).toBeGreaterThan(first.context.epoch);
});

test("limits are the engine's own, as soon as it has told them", async () => {
  const engine = await fleet.startEngine();
  const agent = await fleet.startLinked('a', [engine.url], []);
  expect(doorOf(agent).report(false)).toMatchObject({
    health: 'starting',
    limits: { kvTokens: 100_000, maxModelLen: 0 },
  });
  await fleet.until('up', () => upCount(agent) === 1);
  await fleet.advance(1500);
  const report = doorOf(agent).report(true);
  expect(report).toMatchObject({
    health: 'up',
    draining: true,
    limits: { blockTokens: 16, maxModelLen: 32_768 },
    gpu: null,
    models: ['test-model'],
  });
  expect(report.limits.kvTokens).toBeGreaterThan(63_000);
  expect(report.limits.kvTokens).toBeLessThanOrEqual(64_000);
  expect(report.engine).toMatchObject({ running: 0, waiting: 0 });
});
