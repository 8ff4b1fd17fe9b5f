import type { BrainConfig, Config } from '../shared/config/index.ts';
import type { Env } from '../shared/env.ts';
import { listen } from '../shared/listen.ts';
import { BrainCore } from './core.ts';
import { newCounters } from './counters.ts';
import { Hub } from './hub.ts';
import { keptStoreIn } from './kept-store.ts';
import { makeServer, urlFromHere } from './server.ts';
import { InThreadTrainer, type Trainer, WorkerTrainer } from './train.ts';

/** A brain that serves. */
export interface Brain {
  url: string;
  /** Stops serving and flushes the store. */
  close(): Promise<void>;
}

/**
 * Starts a brain: opens its store, restores what it knew, and listens. Errors: CONFIG_INVALID, STORE_FAILED. `trainer`
 * replaces the training thread in tests.
 */
export async function startBrain(
  config: Config,
  env: Env,
  trainer: Trainer = defaultTrainer(config.brain, env),
): Promise<Brain> {
  const { maxAgents, maxFrameBytes, stateDir } = config.brain;
  const counters = newCounters();
  const store = keptStoreIn(stateDir, env, counters);
  const core = new BrainCore(config.brain, env, {
    counters,
    store,
    trainer,
    hub: (welcome, handlers) =>
      new Hub({ token: config.token, maxAgents, maxFrameBytes }, env, store, counters, welcome, handlers),
  });
  const app = makeServer({
    token: config.token,
    log: env.log,
    counters: core.counters,
    status: () => core.status(),
    choosePolicy: (policy, objective) => core.choosePolicy({ policy, objective: objective ?? core.choice.objective }),
  });
  core.hub.attach(app.server);
  try {
    const { host } = config.brain;
    const url = urlFromHere(host, await listen(app, 'brain', host, config.brain.port));
    env.log.info({ url, stateDir, table: core.publisher.table()?.version ?? 0 }, 'brain is listening');
    core.run();
    return {
      url,
      async close() {
        await core.stop();
        await app.close();
        await core.store.close();
      },
    };
  } catch (error) {
    await core.stop();
    await core.store.close();
    throw error;
  }
}

/** A worker thread; from TypeScript source, which a thread of Node 20 cannot load, the calling thread. */
function defaultTrainer({ backend, tfjsNodeGpuDir, gpuMemoryLimitMb }: BrainConfig, env: Env): Trainer {
  const options = { backend, tfjsNodeGpuDir, gpuMemoryLimitMb };
  return import.meta.url.endsWith('.ts') ? new InThreadTrainer(options) : new WorkerTrainer(options, env.clock);
}
