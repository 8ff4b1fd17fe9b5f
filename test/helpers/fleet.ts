import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Pool } from 'undici';
import { type RunningAgent, startAgent } from '../../agent/main.ts';
import { type Brain, startBrain } from '../../brain/main.ts';
import { InThreadTrainer } from '../../brain/train.ts';
import { type Config, loadConfig } from '../../shared/config/index.ts';
import { seededRng, silentLog } from '../../shared/env.ts';
import type { GpuProfile } from '../../sim/engine/gpus.ts';
import { type EmulatorOptions, type RunningEmulator, startEmulator } from '../../sim/engine/server.ts';
import { VirtualClock } from './virtual-clock.ts';

export const TOKEN = 'test-fleet-token-0123456789';
export const MODEL = 'test-model';

/** A GPU whose steps take 10 ms whatever is in them: virtual time makes its speed irrelevant. */
export const TEST_GPU: GpuProfile = {
  key: 'TEST',
  status: 'made up for tests',
  c0: 10,
  c1: 0.02,
  c2: 0,
  c3: 0,
  c4: 0,
  kvTokens: 64_000,
  hardware: { name: 'Test GPU', memoryMb: 24_000, maxClockMhz: 1500, maxPowerW: 200 },
} as unknown as GpuProfile;

/** URL of a vLLM server, with the key that it asks for, the GPU that it runs on, or where it publishes KV events. */
export type VllmServer =
  | string
  | {
      url: string;
      apiKey?: string;
      kind?: { gpu: string };
      kvEvents?: { endpoint: string; replayEndpoint: string | undefined };
    };

/** Emulated engines, agents and a brain in this process, on one virtual clock, talking over real sockets. */
export class TestFleet {
  readonly clock = new VirtualClock();
  readonly dir = mkdtempSync(join(tmpdir(), 'lodestar-fleet-'));
  readonly engines: RunningEmulator[] = [];
  readonly agents = new Map<string, RunningAgent>();
  brain: Brain | undefined;
  private brainPort = 0;
  private readonly clients = new Map<string, Pool>();

  /**
   * Advances virtual time in small steps with I/O between them until the condition holds; fails after `maxMs` of
   * virtual time.
   */
  async until(what: string, condition: () => boolean | Promise<boolean>, maxMs = 30_000): Promise<void> {
    for (let passed = 0; passed <= maxMs; passed += 5) {
      if (await condition()) return;
      await this.advance(5);
    }
    throw new Error(`${what}: not within ${maxMs} ms of virtual time`);
  }

  /** Virtual time passes, with real I/O let through. */
  async advance(ms: number, stepMs = 5): Promise<void> {
    for (let done = 0; done < ms; done += stepMs) {
      this.clock.advance(Math.min(stepMs, ms - done));
      for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** `gpu`: its step times, noise and front end as of a real engine; without one, fixed steps of TEST_GPU. */
  async startEngine(port = 0, gpu?: GpuProfile, options: Partial<EmulatorOptions> = {}): Promise<RunningEmulator> {
    const real = gpu ? { frontEndMs: 8, noise: 0.02, maxNumSeqs: 256 } : { frontEndMs: 0, noise: 0, maxNumSeqs: 64 };
    const engine = await startEmulator({
      clock: this.clock,
      gpu: gpu ?? TEST_GPU,
      host: '127.0.0.1',
      port,
      model: MODEL,
      maxBatchedTokens: 2048,
      maxModelLen: 32_768,
      seed: this.engines.length + 1,
      ...real,
      ...options,
    });
    this.engines.push(engine);
    return engine;
  }

  /** Starts the brain; a second time, on the same port and state. */
  async startBrain(): Promise<void> {
    const config = this.config({
      'brain.port': this.brainPort,
      'brain.stateDir': join(this.dir, 'brain'),
      'brain.backend': 'cpu',
    });
    const env = { clock: this.clock, rng: seededRng(1), log: silentLog };
    this.brain = await startBrain(
      config,
      env,
      new InThreadTrainer({ backend: 'cpu', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 }),
    );
    this.brainPort = Number(new URL(this.brain.url).port);
  }

  async stopBrain(): Promise<void> {
    await this.brain?.close();
    this.brain = undefined;
  }

  async startAgent(id: string, vllm: VllmServer[], sets: Record<string, string | number> = {}): Promise<RunningAgent> {
    const config = this.config(
      {
        'agent.id': id,
        'agent.port': 0,
        'agent.advertiseUrl': 'http://127.0.0.1:0',
        'agent.stateDir': join(this.dir, id),
        'agent.brainUrl': this.brainPort ? `ws://127.0.0.1:${this.brainPort}` : '',
        'agent.nvidiaSmiPath': '/nonexistent/nvidia-smi',
        ...sets,
      },
      vllm,
    );
    const agent = await startAgent(config.agent, TOKEN, {
      clock: this.clock,
      rng: seededRng(id.length + 7),
      log: silentLog,
    });
    this.agents.set(id, agent);
    return agent;
  }

  /** Every agent sees every instance up. */
  async ready(instances: number): Promise<void> {
    await this.until('the fleet is ready', () =>
      [...this.agents.values()].every(({ context }) => {
        context.instances.readLocal(false);
        return (
          [...context.instances.views.values()].filter((view) => view.report?.health === 'up').length === instances
        );
      }),
    );
  }

  /** Sends a streamed completion; settles when the answer has ended. */
  complete(
    agent: RunningAgent,
    prompt: string,
    maxTokens = 5,
  ): Promise<{ status: number; text: string; cut: boolean; instance: string | undefined }> {
    const url = `http://127.0.0.1:${agent.port}`;
    let pool = this.clients.get(url);
    if (!pool) {
      pool = new Pool(url, { headersTimeout: 0, bodyTimeout: 0 });
      this.clients.set(url, pool);
    }
    const client = pool;
    return new Promise((resolve) => {
      const answer = { status: 0, text: '', cut: false, instance: undefined as string | undefined };
      client.dispatch(
        {
          method: 'POST',
          path: '/v1/completions',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ model: MODEL, prompt, max_tokens: maxTokens, stream: true, ignore_eos: true }),
        },
        {
          onRequestStart: () => undefined,
          onResponseStart: (_controller, status, headers) => {
            answer.status = status;
            answer.instance = headers['x-lodestar-instance'] as string | undefined;
          },
          onResponseData: (_controller, chunk) => {
            answer.text += chunk.toString('utf8');
          },
          onResponseEnd: () => resolve(answer),
          onResponseError: () => resolve({ ...answer, cut: true }),
        },
      );
    });
  }

  /** Settles a promise of real I/O while virtual time passes. */
  async during<T>(promise: Promise<T>, maxMs = 30_000): Promise<T> {
    let done = false;
    const watched = promise.finally(() => (done = true));
    watched.catch(() => undefined);
    await this.until('the answer', () => done, maxMs);
    return watched;
  }

  async stop(): Promise<void> {
    await Promise.all([...this.clients.values()].map((pool) => pool.destroy()));
    await Promise.all([...this.agents.values()].map((agent) => agent.close()));
    await this.stopBrain();
    await Promise.all(this.engines.map((engine) => engine.close().catch(() => undefined)));
    rmSync(this.dir, { recursive: true, force: true });
  }

  private config(sets: Record<string, string | number>, vllm: VllmServer[] = []): Config {
    return loadConfig({
      env: { LODESTAR_TOKEN: TOKEN },
      sets: Object.entries(sets).map(([key, value]) => `${key}=${value}`),
      overrides: {
        agent: { instances: vllm.map((server) => (typeof server === 'string' ? { url: server } : server)) },
      },
    });
  }
}
