import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Child, listeningUrl } from '../../../cli/demo/child.ts';
import { FleetClient } from '../../../cli/demo/fleet-client.ts';
import { Fleet } from '../../../cli/demo/fleet.ts';
import { untilFleetIsUp } from '../../../cli/demo/phases.ts';
import type { LodestarError } from '../../../shared/errors.ts';
import { packageRoot } from '../../../shared/package-root.ts';

const folder = mkdtempSync(join(tmpdir(), 'lodestar-fleet-'));
const command = join(packageRoot, 'bin/lodestar.mjs');
const env = { ...process.env, LODESTAR_AGENT_PORT: 'of another fleet' };

// The processes of a fleet skip the check for a stale build: this runs it once.
beforeAll(() => void spawnSync(process.execPath, [command, '--version']));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function lives(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

it('starts nine processes, knows all instances at every entry, tells who dies, and leaves nothing behind', async () => {
  let told: (error: LodestarError) => void = () => {};
  const death = new Promise<LodestarError>((resolve) => (told = resolve));
  const ready: string[] = [];
  const fleet = new Fleet({
    folder,
    logs: folder,
    env,
    onDeath: (error) => told(error),
    onReady: (name) => ready.push(name),
  });
  try {
    await fleet.start();
    expect(ready.toSorted()).toEqual([
      'agent a100',
      'agent a30-1',
      'agent a30-2',
      'agent l20',
      'brain',
      'engine a100',
      'engine a30-1',
      'engine a30-2',
      'engine l20',
    ]);
    const client = new FleetClient(fleet);
    await untilFleetIsUp({ client, signal: new AbortController().signal });
    const version = await client.choosePolicy('round-robin');
    expect(version).toBeGreaterThan(0);
    await client.resetCaches();
    process.kill(fleet.processes().find(({ name }) => name === 'engine l20')?.pid ?? 0, 'SIGKILL');
    expect(await death).toMatchObject({
      code: 'PROCESS_DIED',
      message: expect.stringMatching(
        /^engine l20 was ended by SIGKILL; the end of its log:\n.*EMULATED vLLM/,
      ) as string,
    });
  } finally {
    await fleet.stop();
  }
  expect(fleet.processes()).toHaveLength(9);
  expect(fleet.processes().filter(({ pid }) => lives(pid))).toEqual([]);
});

it('refuses a process that ends before it listens, with its log', async () => {
  const child = new Child({
    name: 'engine x',
    args: ['engine', '--gpu', 'nothing'],
    env: { ...env, LODESTAR_NO_BUILD: '1' },
    logFile: join(folder, 'x.log'),
    onDeath: () => {},
  });
  await expect(child.ready).rejects.toThrow(
    /engine x ended with status 1; the end of its log:\n.*unknown GPU 'nothing'/,
  );
});

it('ends a process whose parent is gone', async () => {
  const preload = pathToFileURL(join(packageRoot, 'dist/cli/demo/exit-with-parent.js')).href;
  const engine = spawn(process.execPath, ['--import', preload, command, 'engine', '--gpu', 'A30', '--port', '0'], {
    env: { ...process.env, LODESTAR_NO_BUILD: '1' },
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  await once(engine.stdout, 'data');
  engine.stdin.end();
  expect(await once(engine, 'exit')).toEqual([1, null]);
});

it('reads the URL off the first whole line that has one', () => {
  expect(listeningUrl('{"listening":"http://a:1"}')).toBeUndefined();
  expect(listeningUrl('noise\n{"listening":"http://a:1"}\n{"listening":"http://b:2"}\n')).toBe('http://a:1');
});
