import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { Pool } from 'undici';
import { packageRoot } from '../../shared/package-root.ts';
import { type Figure, quantileOf } from './figure.ts';

const ROUNDS = 400;
const WARM_UP = 60;
const TOKEN = 'bench-token-0123456789';
const BODY = JSON.stringify({ prompt: 'The quick brown fox jumps over the lazy dog. '.repeat(90), max_tokens: 1, stream: true });

/**
 * TTFT that Lodestar adds: the same streamed request of 4 KB sent in turn directly to an emulated engine (steps of 1 ms), through an entry that
 * is its door, and through an entry whose door is another agent. Separate processes, one request at a time, on keep-alive connections.
 */
export async function addedTtftFigures(): Promise<Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-bench-'));
  const children: ChildProcess[] = [];
  try {
    const gpuFile = join(dir, 'gpus.json');
    writeFileSync(gpuFile, JSON.stringify({ gpus: { FAST: { c0: 1, c1: 0, c2: 0, c3: 0, c4: 0, kvTokens: 1_000_000 } } }));
    const engine = await start(children, ['engine', '--gpu', 'FAST', '--gpu-file', gpuFile, '--port', '0', '--front-end-ms', '0', '--noise', '0']);
    const brain = await start(children, ['brain', '--host', '127.0.0.1', '--port', '0', '--state-dir', join(dir, 'brain')]);
    const brainUrl = brain.replace('http', 'ws');
    const agentArgs = (id: string): string[] => [
      'agent', '--id', id, '--host', '127.0.0.1', '--port', '0', '--set', 'agent.advertiseUrl=http://127.0.0.1:0', '--brain-url', brainUrl, '--state-dir', join(dir, id),
    ];
    const door = await start(children, [...agentArgs('door'), '--vllm', engine]);
    const entry = await start(children, agentArgs('entry'));
    await until(async () => (await fetch(`${entry}/ready`)).ok && (await fetch(`${door}/ready`)).ok);
    return await compare({ direct: engine, door, hop: entry });
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

async function compare(urls: { direct: string; door: string; hop: string }): Promise<Figure[]> {
  const pools = { direct: new Pool(urls.direct), door: new Pool(urls.door), hop: new Pool(urls.hop) };
  const added = { door: [] as number[], hop: [] as number[] };
  const direct: number[] = [];
  for (let round = 0; round < ROUNDS + WARM_UP; round++) {
    const base = await ttftMs(pools.direct);
    const door = await ttftMs(pools.door);
    const hop = await ttftMs(pools.hop);
    if (round < WARM_UP) continue;
    direct.push(base);
    added.door.push(door);
    added.hop.push(hop);
  }
  await Promise.all(Object.values(pools).map((pool) => pool.close()));
  const p50 = quantileOf(direct, 0.5);
  const door = quantileOf(added.door, 0.5) - p50;
  const hop = quantileOf(added.hop, 0.5) - p50;
  return [
    { name: 'direct TTFT, p50', value: p50, unit: 'ms' },
    { name: 'added by an entry that is the door, p50', value: door, unit: 'ms', target: '<= 0.7 ms', ok: door <= 0.7 },
    { name: 'added by entry and door on two agents, p50', value: hop, unit: 'ms', target: '<= 1.2 ms', ok: hop <= 1.2 },
    { name: 'added by an entry that is the door, ratio of p50', value: quantileOf(added.door, 0.5) / p50, unit: 'x' },
    { name: 'added by entry and door on two agents, ratio of p50', value: quantileOf(added.hop, 0.5) / p50, unit: 'x' },
  ];
}

function ttftMs(pool: Pool): Promise<number> {
  return new Promise((resolve, reject) => {
    const startMs = performance.now();
    let firstMs: number | undefined;
    pool.dispatch(
      { method: 'POST', path: '/v1/completions', headers: { 'content-type': 'application/json' }, body: BODY },
      {
        onRequestStart: () => undefined,
        onResponseStart: (_controller, status) => {
          if (status !== 200) reject(new Error(`status ${status}`));
        },
        onResponseData: () => {
          firstMs ??= performance.now() - startMs;
        },
        onResponseEnd: () => resolve(firstMs ?? NaN),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}

function start(children: ChildProcess[], args: string[]): Promise<string> {
  const child = spawn(process.execPath, [join(packageRoot, 'bin/lodestar.mjs'), ...args], {
    env: { ...process.env, LODESTAR_TOKEN: TOKEN, LODESTAR_LOG_LEVEL: 'error', LODESTAR_NO_BUILD: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`${args[0]} exited with ${code}`)));
    createInterface({ input: child.stdout }).once('line', (line) => resolve((JSON.parse(line) as { listening: string }).listening));
  });
}

async function until(ready: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await ready().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the fleet did not become ready');
}
