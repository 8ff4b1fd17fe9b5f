import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { packageRoot } from '../../shared/package-root.ts';

export const LODESTAR = join(packageRoot, 'bin/lodestar.mjs');
export const TOKEN = 'bench-token-0123456789';

/** Starts a process that prints {"listening": url} first; resolves to that url. */
export function start(children: ChildProcess[], args: string[]): Promise<string> {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, LODESTAR_TOKEN: TOKEN, LODESTAR_LOG_LEVEL: 'error', LODESTAR_NO_BUILD: '1' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`${args.slice(0, 2).join(' ')} exited with ${code}`)));
    createInterface({ input: child.stdout }).once('line', (line) =>
      resolve((JSON.parse(line) as { listening: string }).listening),
    );
  });
}

/** An agent without an engine and the agent beside one: each with its url and process. */
export interface Hop {
  readonly entry: string;
  readonly entryProcess: ChildProcess;
  readonly door: string;
  readonly doorProcess: ChildProcess;
}

/** Starts a brain and two agents on free ports, one of them beside the engine; resolves once both are ready. */
export async function startHop(children: ChildProcess[], dir: string, engine: string): Promise<Hop> {
  const brain = await start(children, [LODESTAR, 'brain', ...placeArgs(dir, 'brain')]);
  const brainUrl = brain.replace('http', 'ws');
  const door = await start(children, [...agentArgs('door', dir, brainUrl), '--vllm', engine]);
  const doorProcess = children.at(-1) as ChildProcess;
  const entry = await start(children, agentArgs('entry', dir, brainUrl));
  const entryProcess = children.at(-1) as ChildProcess;
  await until(async () => (await fetch(`${entry}/ready`)).ok && (await fetch(`${door}/ready`)).ok);
  return { entry, entryProcess, door, doorProcess };
}

function agentArgs(id: string, dir: string, brainUrl: string): string[] {
  const advertise = ['--set', 'agent.advertiseUrl=http://127.0.0.1:0'];
  return [LODESTAR, 'agent', '--id', id, ...placeArgs(dir, id), ...advertise, '--brain-url', brainUrl];
}

/** A free port of this machine, and a folder of its own. */
function placeArgs(dir: string, name: string): string[] {
  return ['--host', '127.0.0.1', '--port', '0', '--state-dir', join(dir, name)];
}

async function until(ready: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await ready().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the fleet did not become ready');
}
