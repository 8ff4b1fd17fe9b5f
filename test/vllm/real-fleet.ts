import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DoorInstance } from '../../agent/door/door-instance.ts';
import type { InstanceView } from '../../agent/entry/instances.ts';
import { type RunningAgent, startAgent } from '../../agent/main.ts';
import { type Brain, startBrain } from '../../brain/main.ts';
import { InThreadTrainer } from '../../brain/train.ts';
import type { PolicyName } from '../../shared/choice/policies/index.ts';
import { loadConfig } from '../../shared/config/index.ts';
import { realClock, seededRng, silentLog } from '../../shared/env.ts';
import { isIdle, MODEL, scrape } from './scrape.ts';
import { loadOptions, VllmServer } from './server.ts';
import { until } from './until.ts';
import { fidelityLoads, type Load } from './workload.ts';

const TOKEN = 'test-fleet-token-0123456789';
/** Only `near` answers to these. */
export const NEAR_MODEL = 'tiny-near';
export const ADAPTER = 'tiny-adapter';
/** Sequences that run at once on `near`. */
export const NEAR_SEQUENCES = 4;
/** The load that `far` is compared under. */
export const FAR_LOAD: Load = fidelityLoads().find((load) => load.name === 'agents') as Load;

/** An agent with the vLLM beside it. */
export interface Node {
  server: VllmServer;
  agent: RunningAgent;
  url: string;
}

/**
 * Two real vLLM servers, each with its agent, and a brain, on the real clock in this process. `near` takes four
 * sequences in steps of 20 ms and has a LoRA adapter; `far` has the step times of an A30 and a cache of 400 blocks. A
 * request for `tiny-near` goes to `near` whichever agent gets it.
 */
export class RealFleet {
  readonly near: Node;
  readonly far: Node;
  private readonly brain: Brain;
  private readonly dir: string;

  private constructor(near: Node, far: Node, brain: Brain, dir: string) {
    this.near = near;
    this.far = far;
    this.brain = brain;
    this.dir = dir;
  }

  static async start(): Promise<RealFleet> {
    const [nearServer, farServer] = await Promise.all([startNear(), startFar()]);
    const dir = mkdtempSync(join(tmpdir(), 'lodestar-real-fleet-'));
    const config = loadConfig({
      env: {},
      overrides: { token: TOKEN, brain: { host: '127.0.0.1', port: 0, stateDir: join(dir, 'brain'), backend: 'cpu' } },
    });
    const brain = await startBrain(
      config,
      env(1),
      new InThreadTrainer({ backend: 'cpu', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 }),
    );
    const brainUrl = brain.url.replace('http', 'ws');
    const near = await startNode(dir, 'near', nearServer, brainUrl, {
      maxNumSeqs: NEAR_SEQUENCES,
      maxBatchedTokens: 512,
    });
    const far = await startNode(dir, 'far', farServer, brainUrl, {
      maxNumSeqs: FAR_LOAD.maxNumSeqs,
      maxBatchedTokens: FAR_LOAD.maxBatchedTokens,
    });
    const fleet = new RealFleet(near, far, brain, dir);
    await until('every agent sees both instances up', () =>
      [near, far].every((node) => [near, far].every((of) => view(node, of).report?.health === 'up')),
    );
    return fleet;
  }

  async stop(): Promise<void> {
    await Promise.all([this.near, this.far].flatMap(({ agent, server }) => [agent.close(), server.stop()]));
    await this.brain.close();
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Every agent routes by this policy. */
  async choosePolicy(policy: PolicyName): Promise<void> {
    const headers = { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' };
    const { status } = await fetch(`${this.brain.url}/lodestar/policy`, {
      method: 'PUT',
      headers,
      body: JSON.stringify({ policy }),
    });
    if (status !== 200) throw new Error(`the brain answered ${status} to the choice of a policy`);
    await until(`every agent routes by ${policy}`, () =>
      [this.near, this.far].every(({ agent }) => agent.context.tables.status().policy === policy),
    );
  }

  /** Nothing runs or waits on either server, and both doors know. */
  async rest(): Promise<void> {
    await until('the fleet is at rest', async () => {
      const busy = await Promise.all(
        [this.near, this.far].map(
          async (node) => door(node).ledger.inFlight > 0 || !isIdle(await scrape(node.server.url)),
        ),
      );
      return !busy.includes(true);
    });
  }
}

/** What an agent knows of the instance of another, or its own. */
export function view(by: Node, of: Node): InstanceView {
  const { instances } = by.agent.context;
  instances.readLocal(false);
  const found = instances.views.get(of.agent.context.config.id);
  return found ?? ({ report: undefined } as InstanceView);
}

/** The agent's account of its own vLLM. */
export function door(node: Node): DoorInstance {
  return view(node, node).local as DoorInstance;
}

function env(seed: number): { clock: typeof realClock; rng: ReturnType<typeof seededRng>; log: typeof silentLog } {
  return { clock: realClock, rng: seededRng(seed), log: silentLog };
}

function startNear(): Promise<VllmServer> {
  return VllmServer.start({
    step: 0.02,
    serve: {
      'served-model-name': [MODEL, NEAR_MODEL],
      'max-num-seqs': NEAR_SEQUENCES,
      'max-num-batched-tokens': 512,
      'num-gpu-blocks-override': 400,
      'max-model-len': 2048,
      'enable-lora': true,
      'lora-modules': `${ADAPTER}=/nowhere/at/all`,
      'enable-per-request-metrics': true,
    },
  });
}

function startFar(): Promise<VllmServer> {
  return VllmServer.start(loadOptions(FAR_LOAD));
}

async function startNode(
  dir: string,
  id: string,
  server: VllmServer,
  brainUrl: string,
  limits: { maxNumSeqs: number; maxBatchedTokens: number },
): Promise<Node> {
  const agent = {
    id,
    host: '127.0.0.1',
    port: 0,
    advertiseUrl: 'http://127.0.0.1:0',
    stateDir: join(dir, id),
    brainUrl,
    nvidiaSmiPath: '/nonexistent/nvidia-smi',
    instances: [{ id, url: server.url, kind: { gpu: id }, ...limits }],
  };
  const config = loadConfig({ env: {}, overrides: { token: TOKEN, agent } });
  const running = await startAgent(config.agent, TOKEN, env(id.length));
  return { server, agent: running, url: `http://127.0.0.1:${running.port}` };
}
