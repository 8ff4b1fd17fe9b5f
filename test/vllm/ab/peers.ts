import { spawn, spawnSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from '../free-port.ts';
import { rigScripts } from '../server.ts';
import { until } from '../until.ts';
import { type Router, serves } from './router.ts';
import type { GpuServer } from './servers.ts';

/** Folder of the routers' virtual environment, outside the source tree. */
const venv = process.env['LODESTAR_PEERS_VENV'] || join(homedir(), '.cache/lodestar/ab-venv');
const TAIL_CHARS = 1500;

/** Other routers: the package, and its command to route for the servers on a port. */
export const PEERS = {
  'vllm-router': (urls: readonly string[], port: number, metricsPort: number) => [
    join(venv, 'bin/vllm-router'),
    '--policy',
    'cache_aware',
    ...common(urls, port, metricsPort),
  ],
  smg: (urls: readonly string[], port: number, metricsPort: number) => [
    join(venv, 'bin/python'),
    '-m',
    'smg',
    'launch',
    '--policy',
    'least_load',
    ...common(urls, port, metricsPort),
  ],
} as const;
export type PeerName = keyof typeof PEERS;

function common(urls: readonly string[], port: number, metricsPort: number): string[] {
  return [
    '--host',
    '127.0.0.1',
    '--port',
    String(port),
    '--prometheus-port',
    String(metricsPort),
    '--worker-urls',
    ...urls,
  ];
}

/** Installs the routers if they are not there; returns those that are. */
export function installPeers(): PeerName[] {
  const names = Object.keys(PEERS) as PeerName[];
  const isThere = (name: PeerName): boolean => existsSync(join(venv, 'bin', name));
  if (!names.every(isThere)) spawnSync('bash', [join(rigScripts, 'install-peers.sh'), venv], { stdio: 'inherit' });
  return names.filter(isThere);
}

/** Starts one as a process of its own. Throws with the end of its log if it does not serve within a minute. */
export async function startPeer(name: PeerName, servers: readonly GpuServer[]): Promise<Router> {
  const folder = mkdtempSync(join(tmpdir(), `lodestar-${name}-`));
  const port = await freePort();
  const [command = '', ...args] = PEERS[name](
    servers.map(({ server }) => server.url),
    port,
    await freePort(),
  );
  const logFile = join(folder, 'log');
  const log = openSync(logFile, 'w');
  const child = spawn(command, args, { detached: true, stdio: ['ignore', log, log], cwd: folder });
  closeSync(log);
  const isRunning = (): boolean => child.exitCode === null && child.signalCode === null;
  const kill = (): void => {
    if (child.pid !== undefined && isRunning()) process.kill(-child.pid, 'SIGKILL');
  };
  process.once('exit', kill);
  const stop = async (): Promise<void> => {
    const gone = isRunning() ? new Promise<void>((done) => child.once('exit', () => done())) : Promise.resolve();
    kill();
    await gone;
    rmSync(folder, { recursive: true, force: true });
  };
  const url = `http://127.0.0.1:${port}`;
  try {
    await until(`${name} serves`, () => {
      if (!isRunning()) throw new Error(`${name} ended`);
      return serves(url);
    });
  } catch (error) {
    const tail = readFileSync(logFile, 'utf8').slice(-TAIL_CHARS);
    await stop();
    throw new Error(`${name} does not serve; its log ends with\n${tail}`, { cause: error });
  }
  return { urls: [url], stop };
}
