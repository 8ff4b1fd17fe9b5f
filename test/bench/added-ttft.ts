import type { ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'undici';
import { packageRoot } from '../../shared/package-root.ts';
import { type Figure, quantileOf } from './figure.ts';
import { LODESTAR, start, startHop } from './processes.ts';

const BARE_PROXY = join(packageRoot, 'dist/test/bench/bare-proxy.js');
const ROUNDS = 800;
// Enough for the JIT: a router that has just been started is not what is measured.
const WARM_UP = 1500;
const BODY = JSON.stringify({
  prompt: 'The quick brown fox jumps over the lazy dog. '.repeat(90),
  max_tokens: 1,
  stream: true,
});

/**
 * TTFT that Lodestar adds: the same streamed request of 4 KB sent in turn directly to an emulated engine (steps of 1
 * ms), through an entry that is its door, and through an entry whose door is another agent; and beside them through one
 * and two proxies that only pass bytes. Separate processes, one request at a time, on keep-alive connections.
 */
export async function addedTtftFigures(): Promise<Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-bench-'));
  const children: ChildProcess[] = [];
  try {
    const gpuFile = join(dir, 'gpus.json');
    writeFileSync(
      gpuFile,
      JSON.stringify({ gpus: { FAST: { c0: 1, c1: 0, c2: 0, c3: 0, c4: 0, kvTokens: 1_000_000 } } }),
    );
    const engine = await start(children, [
      LODESTAR,
      'engine',
      '--gpu',
      'FAST',
      '--gpu-file',
      gpuFile,
      '--port',
      '0',
      '--front-end-ms',
      '0',
      '--noise',
      '0',
    ]);
    const { entry, door } = await startHop(children, dir, engine);
    const bareOne = await start(children, [BARE_PROXY, engine]);
    const bareTwo = await start(children, [BARE_PROXY, bareOne]);
    return await compare({ direct: engine, door, hop: entry, bareOne, bareTwo });
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

type Path = 'direct' | 'door' | 'hop' | 'bareOne' | 'bareTwo';

async function compare(urls: Record<Path, string>): Promise<Figure[]> {
  const paths = Object.keys(urls) as Path[];
  const pools = Object.fromEntries(paths.map((path) => [path, new Pool(urls[path])])) as Record<Path, Pool>;
  const seen: Record<Path, number[]> = { direct: [], door: [], hop: [], bareOne: [], bareTwo: [] };
  for (let round = 0; round < ROUNDS + WARM_UP; round++) {
    for (const path of paths) {
      const ms = await ttftMs(pools[path]);
      if (round >= WARM_UP) seen[path].push(ms);
    }
  }
  await Promise.all(Object.values(pools).map((pool) => pool.close()));
  const direct = quantileOf(seen.direct, 0.5);
  const added = (path: Path): number => quantileOf(seen[path], 0.5) - direct;
  return [
    { name: 'direct TTFT, p50', value: direct, unit: 'ms' },
    { name: 'added by a bare proxy, p50', value: added('bareOne'), unit: 'ms' },
    {
      name: 'added by an entry that is the door, p50',
      value: added('door'),
      unit: 'ms',
      target: '<= 0.7 ms',
      ok: added('door') <= 0.7,
    },
    { name: 'added by two bare proxies in a row, p50', value: added('bareTwo'), unit: 'ms' },
    {
      name: 'added by entry and door on two agents, p50',
      value: added('hop'),
      unit: 'ms',
      target: '<= 1.2 ms',
      ok: added('hop') <= 1.2,
    },
    { name: 'entry that is the door / bare proxy', value: added('door') / added('bareOne'), unit: 'x' },
    { name: 'entry and door / two bare proxies', value: added('hop') / added('bareTwo'), unit: 'x' },
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
