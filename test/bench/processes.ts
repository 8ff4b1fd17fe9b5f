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

/** Arguments of an agent on a free port of this machine. */
export function agentArgs(id: string, dir: string, brainUrl: string): string[] {
  return [
    LODESTAR,
    'agent',
    '--id',
    id,
    '--host',
    '127.0.0.1',
    '--port',
    '0',
    '--set',
    'agent.advertiseUrl=http://127.0.0.1:0',
    '--brain-url',
    brainUrl,
    '--state-dir',
    join(dir, id),
  ];
}

export async function until(ready: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    if (await ready().catch(() => false)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the fleet did not become ready');
}
