import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { realClock } from '../../shared/env.ts';
import { type LoadOutcome, runLoad } from '../../sim/workloads/index.ts';
import { eventually, type LodestarProcess, startProcess } from '../helpers/process.ts';

const ENV = { LODESTAR_TOKEN: 'e2e-token-0123456789', LODESTAR_LOG_LEVEL: 'info' };
const MODEL = 'e2e';

const dir = mkdtempSync(join(tmpdir(), 'lodestar-e2e-'));
const running = new Set<LodestarProcess>();

afterEach(async () => {
  await Promise.all([...running].map((one) => one.kill()));
  rmSync(dir, { recursive: true, force: true });
});

async function start(...args: string[]): Promise<LodestarProcess> {
  const started = await startProcess(args, ENV);
  running.add(started);
  return started;
}

function startEngine(port = '0'): Promise<LodestarProcess> {
  const gpuFile = join(dir, 'gpus.json');
  writeFileSync(
    gpuFile,
    JSON.stringify({ gpus: { SMALL: { c0: 10, c1: 0.02, c2: 0, c3: 0.1, c4: 0, kvTokens: 64_000 } } }),
  );
  return start('engine', '--gpu', 'SMALL', '--gpu-file', gpuFile, '--port', port, '--model', MODEL);
}

function startBrain(port = '0'): Promise<LodestarProcess> {
  return start(
    'brain',
    '--host',
    '127.0.0.1',
    '--port',
    port,
    '--state-dir',
    join(dir, 'brain'),
    '--set',
    'brain.backend=cpu',
  );
}

function startAgent(id: string, engine: LodestarProcess, brain: LodestarProcess): Promise<LodestarProcess> {
  return start(
    'agent',
    '--id',
    id,
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--set',
    'agent.advertiseUrl=http://127.0.0.1:0',
    '--vllm',
    engine.url,
    '--state-dir',
    join(dir, id),
    '--brain-url',
    brain.url.replace('http', 'ws'),
  );
}

interface Status {
  brain: { connected: boolean };
  samples: { waiting: number; dropped: number };
  instances: { instance: string; health: string; incarnation?: number; ledger: { inFlight: number } | null }[];
}

async function status(agent: LodestarProcess): Promise<Status> {
  return (await (await fetch(`${agent.url}/lodestar/status`)).json()) as Status;
}

const ups = async (agent: LodestarProcess): Promise<string[]> =>
  (await status(agent)).instances.filter((one) => one.health === 'up').map((one) => one.instance);
const portOf = (one: LodestarProcess): string => new URL(one.url).port;

/** Sends `n` streamed requests, 20 a second, and collects how each ended. */
async function load(agents: readonly LodestarProcess[], n: number, tokens: number): Promise<LoadOutcome[]> {
  const outcomes: LoadOutcome[] = [];
  const requests = Array.from({ length: n }, (_, i) => ({
    arrivalMs: i * 50,
    maxTokens: tokens,
    prompt: () => `${i % 7} shared beginning `.repeat(60) + i,
  }));
  await runLoad({
    urls: agents.map((agent) => agent.url),
    requests,
    api: 'completions',
    model: MODEL,
    clock: realClock,
    onOutcome: (outcome) => outcomes.push(outcome),
  });
  return outcomes;
}

test('kill -9 of the brain and of an engine under load, with every part its own process', async () => {
  const [engineA, engineB] = [await startEngine(), await startEngine()];
  let brain = await startBrain();
  const agents = [await startAgent('a', engineA, brain), await startAgent('b', engineB, brain)];
  for (const agent of agents) await eventually('both instances are up', async () => (await ups(agent)).length === 2);

  // The brain dies and comes back: nobody's request fails, and the samples of the meantime arrive.
  const duringBrain = load(agents, 120, 20);
  await brain.kill();
  running.delete(brain);
  await eventually('samples wait', async () => (await status(agents[0]!)).samples.waiting > 0);
  brain = await startBrain(portOf(brain));
  expect((await duringBrain).filter((one) => one.kind !== 'ok')).toEqual([]);
  for (const agent of agents) {
    await eventually('the agent is connected again', async () => (await status(agent)).brain.connected);
    await eventually('its samples are taken', async () => (await status(agent)).samples.waiting === 0);
    expect((await status(agent)).samples.dropped).toBe(0);
  }

  // An engine dies: only answers that had begun there may break, and they say so.
  const duringEngine = load(agents, 120, 60);
  await eventually('the engine is busy', async () =>
    (await status(agents[0]!)).instances.some(
      (one) => one.instance.startsWith('a:') && (one.ledger?.inFlight ?? 0) > 2,
    ),
  );
  await engineA.kill();
  running.delete(engineA);
  const outcomes = await duringEngine;
  const failed = outcomes.filter((one) => one.kind !== 'ok');
  expect(failed.filter((one) => one.kind !== 'in-band-error')).toEqual([]);
  for (const one of failed) expect(one.ttftMs).toBeDefined();
  expect(outcomes.length - failed.length).toBeGreaterThan(60);
  for (const agent of agents) expect(await ups(agent)).toEqual([expect.stringMatching(/^b:/)]);

  await startEngine(portOf(engineA));
  for (const agent of agents) await eventually('the engine is back', async () => (await ups(agent)).length === 2);
  expect((await load(agents, 20, 5)).filter((one) => one.kind !== 'ok')).toEqual([]);
});
