import { findGpu, loadGpus } from '../../../sim/engine/gpus.ts';
import { isIdle, scrape } from '../scrape.ts';
import { VllmServer } from '../server.ts';
import { until } from '../until.ts';

/** GPUs of the three servers, with the KV blocks that they have room for. */
const GPUS = [
  { gpu: 'A30', blocks: 2562 },
  { gpu: 'L20', blocks: 12_312 },
  { gpu: 'A100', blocks: 29_205 },
] as const;
export const MAX_SEQUENCES = 256;
export const MAX_BATCHED_TOKENS = 2048;
const CONTEXT_TOKENS = 32_768;
/**
 * Host time between steps that does not lengthen them: three servers, the routers and the clients share the machine.
 */
const HIDDEN_S = 0.05;

/** A server, and the GPU whose step times it has. */
export interface GpuServer {
  gpu: string;
  server: VllmServer;
}

/** Starts all three at once. */
export function startServers(): Promise<GpuServer[]> {
  const profiles = loadGpus();
  return Promise.all(
    GPUS.map(async ({ gpu, blocks }) => ({
      gpu,
      server: await VllmServer.start({
        step: findGpu(profiles, gpu),
        hiddenS: HIDDEN_S,
        serve: {
          'max-num-seqs': MAX_SEQUENCES,
          'max-num-batched-tokens': MAX_BATCHED_TOKENS,
          'num-gpu-blocks-override': blocks,
          'max-model-len': CONTEXT_TOKENS,
          'disable-uvicorn-access-log': true,
        },
      }),
    })),
  );
}

/** Waits until no request is left, and empties the caches. */
export async function resetServers(servers: readonly GpuServer[]): Promise<void> {
  await until('the servers are idle', async () =>
    (await Promise.all(servers.map(({ server }) => scrape(server.url)))).every(isIdle),
  );
  await Promise.all(servers.map(({ server }) => server.resetPrefixCache()));
}

/** Share of the step time of all servers by which the machine delayed their steps since `before`. */
export function lostSteps(servers: readonly GpuServer[]): { stepMs: number; lostMs: number } {
  const all = servers.map(({ server }) => server.steps());
  return {
    stepMs: all.reduce((sum, one) => sum + one.stepMs, 0),
    lostMs: all.reduce((sum, one) => sum + one.lostMs, 0),
  };
}
