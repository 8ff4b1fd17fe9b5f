import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { z } from 'zod';
import { packageRoot } from '../../shared/package-root.ts';
import { freePort } from './free-port.ts';
import { kvTokens, type Load } from './workload.ts';

/** Scripts of the rig, in the source tree. */
export const rigScripts: string = join(packageRoot, 'test/vllm/rig');
/** Folder of an installed rig: LODESTAR_VLLM_RIG, or a folder of the user's cache. */
export const rigFolder: string = process.env['LODESTAR_VLLM_RIG'] ?? join(homedir(), '.cache/lodestar/vllm-rig');

const START_MS = 180_000;
const STOP_MS = 15_000;
const POLL_MS = 250;
/** Host time between steps that does not count: a GPU does not wait for a machine that other work keeps busy. */
const HIDDEN_S = 0.05;

const reportSchema = z.object({ steps: z.number(), step_s: z.number(), lost_s: z.number() });

/** Whether vLLM is installed in the rig's folder. */
export function rigInstalled(): boolean {
  return existsSync(join(rigFolder, 'bin/python')) && existsSync(join(rigFolder, 'lib'));
}

/** A real `vllm serve` whose forward pass alone is replaced by a sleep of the step time. */
export class VllmServer {
  readonly url: string;
  private readonly child: ChildProcess;
  private readonly folder: string;

  private constructor(url: string, child: ChildProcess, folder: string) {
    this.url = url;
    this.child = child;
    // A benchmark that is interrupted must not leave the server behind.
    process.once('exit', () => this.kill());
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
    this.folder = folder;
  }

  /** Starts vLLM as the instance of a load and waits until it serves. Throws with the end of its log if it does not. */
  static async start(load: Load): Promise<VllmServer> {
    const folder = mkdtempSync(join(tmpdir(), 'lodestar-vllm-'));
    const port = await freePort();
    const log = openSync(join(folder, 'log'), 'w');
    const child = spawn('bash', [join(rigScripts, 'serve.sh'), ...serveOptions(load)], {
      detached: true,
      stdio: ['ignore', log, log],
      env: {
        ...process.env,
        PYTHON: join(rigFolder, 'bin/python'),
        MODEL_DIR: join(folder, 'tiny-model'),
        PORT: String(port),
        FAKE_COEFF: coefficients(load),
        FAKE_ASYNC: load.asyncScheduling ? '1' : '0',
        FAKE_HIDDEN: String(HIDDEN_S),
        FAKE_REPORT: join(folder, 'report.json'),
      },
    });
    closeSync(log);
    const server = new VllmServer(`http://127.0.0.1:${port}`, child, folder);
    await server.untilServing();
    return server;
  }

  /** Empties the prefix cache. */
  async resetPrefixCache(): Promise<void> {
    const { statusCode, body } = await request(`${this.url}/reset_prefix_cache`, { method: 'POST' });
    await body.dump();
    if (statusCode !== 200) throw new Error(`vLLM answered ${statusCode} to /reset_prefix_cache`);
  }

  /** Steps since the start, their time, and the time that the machine took between them beyond what is hidden, ms. For an engine that is idle. */
  steps(): { steps: number; stepMs: number; lostMs: number } {
    const { steps, step_s, lost_s } = reportSchema.parse(JSON.parse(readFileSync(join(this.folder, 'report.json'), 'utf8')));
    return { steps, stepMs: step_s * 1000, lostMs: lost_s * 1000 };
  }

  /** Stops it and its children, and waits until they are gone. */
  async stop(): Promise<void> {
    const { child, folder } = this;
    if (child.pid !== undefined && this.isRunning) {
      const gone = new Promise<void>((done) => child.once('exit', () => done()));
      signalGroup(child.pid, 'SIGTERM');
      const timer = setTimeout(() => signalGroup(child.pid as number, 'SIGKILL'), STOP_MS);
      await gone;
      clearTimeout(timer);
      // The engine core is a process of its own and may outlive the API server.
      signalGroup(child.pid, 'SIGKILL');
    }
    rmSync(folder, { recursive: true, force: true });
  }

  private get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  private kill(): void {
    const { pid } = this.child;
    if (pid !== undefined && this.isRunning) signalGroup(pid, 'SIGKILL');
  }

  private async untilServing(): Promise<void> {
    const endMs = Date.now() + START_MS;
    while (!(await answers(`${this.url}/health`))) {
      if (!this.isRunning || Date.now() > endMs) {
        const log = readFileSync(join(this.folder, 'log'), 'utf8').slice(-3000);
        await this.stop();
        throw new Error(`vLLM did not start; its log ends with\n${log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  }
}

function serveOptions(load: Load): string[] {
  const options = {
    'max-num-seqs': load.maxNumSeqs,
    'max-num-batched-tokens': load.maxBatchedTokens,
    'num-gpu-blocks-override': load.blocks,
    'max-model-len': Math.min(32_768, kvTokens(load)),
  };
  return Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
}

function coefficients({ gpu }: Load): string {
  const { c0, c1, c2, c3, c4, T0, c5 } = gpu;
  return [c0, c1, c2, c3, c4, ...(T0 === undefined ? [] : [T0, c5 ?? 0])].join(',');
}

async function answers(url: string): Promise<boolean> {
  try {
    const { statusCode, body } = await request(url);
    await body.dump();
    return statusCode === 200;
  } catch {
    return false;
  }
}

function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // No process of the group is left.
  }
}
