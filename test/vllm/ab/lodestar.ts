import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { PolicyName } from '../../../shared/choice/policies/index.ts';
import { type LodestarProcess, startProcess } from '../../helpers/process.ts';
import { until } from '../until.ts';
import type { Router } from './router.ts';
import { type GpuServer, MAX_BATCHED_TOKENS, MAX_SEQUENCES } from './servers.ts';

const TOKEN = 'bench-fleet-token-0123456789';
const HOST = '127.0.0.1';

/**
 * A brain and an agent for each server, as processes of their own, that know nothing yet. Clients use the agents in
 * turn.
 */
export async function startLodestar(servers: readonly GpuServer[], policy: PolicyName): Promise<Router> {
  const folder = mkdtempSync(join(tmpdir(), 'lodestar-ab-'));
  const env = { LODESTAR_TOKEN: TOKEN, LODESTAR_LOG_LEVEL: 'error' };
  const processes: LodestarProcess[] = [];
  process.once('exit', () => processes.forEach(({ child }) => child.kill('SIGKILL')));
  const start = async (kind: 'brain' | 'agent', name: string, section: object): Promise<string> => {
    const stateDir = join(folder, name);
    mkdirSync(stateDir);
    const config = join(folder, `${name}.yaml`);
    writeFileSync(config, stringify({ [kind]: { host: HOST, port: 0, stateDir, ...section } }));
    const started = await startProcess([kind, '--config', config], env);
    processes.push(started);
    return started.url;
  };
  const stop = async (): Promise<void> => {
    await Promise.all(processes.map((one) => one.kill()));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const brain = await start('brain', 'brain', { policy });
    const agent = ({ gpu, server }: GpuServer): Promise<string> =>
      start('agent', gpu, {
        id: gpu,
        advertiseUrl: `http://${HOST}:0`,
        brainUrl: brain.replace(/^http/, 'ws'),
        nvidiaSmiPath: '/nonexistent/nvidia-smi',
        instances: [
          { id: gpu, url: server.url, kind: { gpu }, maxNumSeqs: MAX_SEQUENCES, maxBatchedTokens: MAX_BATCHED_TOKENS },
        ],
      });
    const urls = await Promise.all(servers.map(agent));
    await until('every agent sees every server', async () =>
      (await Promise.all(urls.map(instancesUp))).every((up) => up === servers.length),
    );
    const resetCaches = async (): Promise<void> => {
      await Promise.all(servers.map(({ gpu }, at) => post(`${urls[at]}/lodestar/instances/${gpu}/reset-prefix-cache`)));
    };
    return { urls, resetCaches, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function instancesUp(url: string): Promise<number> {
  const { instances } = (await (await fetch(`${url}/lodestar/status`)).json()) as { instances: { health: string }[] };
  return instances.filter(({ health }) => health === 'up').length;
}

async function post(url: string): Promise<void> {
  const { status } = await fetch(url, { method: 'POST', headers: { authorization: `Bearer ${TOKEN}` } });
  if (status !== 200) throw new Error(`${url} answered ${status}`);
}
