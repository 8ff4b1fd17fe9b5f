import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../../shared/package-root.ts';
import { type Figure, quantileOf } from './figure.ts';
import type { Order } from './hostile-peers.ts';
import { start, startHop } from './processes.ts';

const PEERS = join(packageRoot, 'dist/test/bench/hostile-peers.js');
const STREAMS = 50;
const QUIET_MS = 3000;
const MAX_LATE_MS = 50;
const MAX_LOOP_MS = 30;
const MAX_RSS_MB = 500;
const SENT_MS = /"content":"(\d+)"/g;

/**
 * Four hostile bodies of 32 MB at once beside 50 streams, over an entry and the door of another agent, one form after
 * the other: how late events reach the streams' client, how long the loops of entry and door were held, and the most
 * memory that each had. All are processes of their own; on fewer cores than these six, they wait for each other, too:
 * see the first line.
 */
export async function hostileBodyFigures(): Promise<Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-bench-'));
  const children: ChildProcess[] = [];
  try {
    const engine = await start(children, [PEERS, 'engine']);
    const { entry, entryProcess, door, doorProcess } = await startHop(children, dir, engine);
    const sender = fork(PEERS, ['sender']);
    children.push(sender);
    const [forms] = (await once(sender, 'message')) as [string[]];
    const lateMs: number[] = [];
    for (let i = 0; i < STREAMS; i++) openStream(entry, lateMs);
    await pause(QUIET_MS);
    // Not what it took to start.
    await figuresOf('start', lateMs, { entry, door });
    await pause(QUIET_MS);
    const figures = await figuresOf('no body', lateMs, { entry, door });
    for (const form of forms) {
      const order: Order = { form, url: entry };
      sender.send(order);
      const [statuses] = (await once(sender, 'message')) as [number[]];
      figures.push(...(await figuresOf(form, lateMs, { entry, door })));
      if (statuses.some((status) => status !== 200))
        figures.push({ name: `${form}: an answer of the agent`, value: Math.max(...statuses), unit: 'status' });
    }
    return [...figures, memoryOf('entry', entryProcess.pid as number), memoryOf('door', doorProcess.pid as number)];
  } finally {
    for (const child of children) child.kill('SIGKILL');
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Opens a stream; each of its events adds how long it took from the engine. */
function openStream(entry: string, lateMs: number[]): void {
  const headers = { 'content-type': 'application/json', 'x-bench': 'stream' };
  const request = httpRequest(`${entry}/v1/chat/completions`, { method: 'POST', agent: false, headers }, (response) => {
    response.setEncoding('latin1').on('data', (text: string) => {
      const nowMs = Date.now();
      for (const [, sentMs] of text.matchAll(SENT_MS)) lateMs.push(nowMs - Number(sentMs));
    });
    response.on('error', () => undefined);
  });
  request.on('error', () => undefined);
  request.end('{"model":"m","stream":true,"messages":[{"role":"user","content":"Hi"}]}');
}

/** What was seen since the last call. */
async function figuresOf(what: string, lateMs: number[], agents: Record<string, string>): Promise<Figure[]> {
  const late = lateMs.splice(0);
  const most = Math.max(...late);
  const figures: Figure[] = [
    {
      name: `${what}: event late by at most`,
      value: most,
      unit: 'ms',
      target: `<= ${MAX_LATE_MS} ms`,
      ok: most <= MAX_LATE_MS,
    },
    { name: `${what}: event late, p99`, value: quantileOf(late, 0.99), unit: 'ms' },
  ];
  for (const [name, url] of Object.entries(agents)) {
    const page = await (await fetch(`${url}/metrics`)).text();
    const ms = 1000 * Number(/^lodestar_agent_nodejs_eventloop_lag_max_seconds (\S+)$/m.exec(page)?.[1]);
    figures.push({
      name: `${what}: longest loop delay, ${name}`,
      value: ms,
      unit: 'ms',
      target: `<= ${MAX_LOOP_MS} ms`,
      ok: ms <= MAX_LOOP_MS,
    });
  }
  return figures;
}

/** Peak of resident memory; Linux only. */
function memoryOf(name: string, pid: number): Figure {
  const mb = Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
  return { name: `peak memory, ${name}`, value: mb, unit: 'MB', target: `<= ${MAX_RSS_MB} MB`, ok: mb <= MAX_RSS_MB };
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
