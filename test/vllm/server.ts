import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join } from 'node:path';
import { request } from 'undici';
import { z } from 'zod';
import { packageRoot } from '../../shared/package-root.ts';
import type { GpuProfile } from '../../sim/engine/gpus.ts';
import { freePort } from '../helpers/free-port.ts';
import { kvTokens, type Load } from './workload.ts';

/** Scripts of the rig, in the source tree. */
export const rigScripts: string = join(packageRoot, 'test/vllm/rig');
/** Folder of an installed rig: LODESTAR_VLLM_RIG, or a folder of the user's cache. */
export const rigFolder: string = process.env['LODESTAR_VLLM_RIG'] || join(homedir(), '.cache/lodestar/vllm-rig');
/** The rig's Python, in which vLLM and the Python clients that it depends on are installed. */
export const rigPython: string = join(rigFolder, 'bin/python');

const START_MS = 180_000;
const STOP_MS = 15_000;
const POLL_MS = 250;

const reportSchema = z.object({ steps: z.number(), step_s: z.number(), lost_s: z.number() });

/** A `vllm serve` to start. */
export interface VllmOptions {
  /** options of `vllm serve` without their dashes; true: a flag without a value; a list: several values */
  serve: Record<string, string | number | true | readonly string[]>;
  /** duration of a step as it would be on that GPU, or always so many seconds */
  step: GpuProfile | number;
  asyncScheduling?: boolean;
  /** host time between two busy steps that does not lengthen them, s; absent: 5 ms */
  hiddenS?: number;
  /** environment of the process beside that */
  env?: Record<string, string>;
}

/** Whether vLLM is installed in the rig's folder. */
export function rigInstalled(): boolean {
  return existsSync(rigPython) && existsSync(join(rigFolder, 'lib'));
}

/** A real `vllm serve` whose forward pass alone is replaced by a sleep of the step time. */
export class VllmServer {
  /** stays the same when it is started again */
  readonly url: string;
  private readonly options: VllmOptions;
  private readonly folder: string;
  private child: ChildProcess;
  private stopped = false;

  private constructor(options: VllmOptions, port: number, folder: string) {
    this.options = options;
    this.url = `http://127.0.0.1:${port}`;
    this.folder = folder;
    this.child = this.spawn();
    // A run that is interrupted must not leave the server behind.
    process.once('exit', () => this.signal('SIGKILL'));
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
  }

  /** Starts vLLM and waits until it serves. Throws with the end of its log if it does not. */
  static async start(options: VllmOptions): Promise<VllmServer> {
    const server = await VllmServer.launch(options);
    await server.untilServing();
    return server;
  }

  /** Starts vLLM and returns at once: it refuses connections for as long as it loads. */
  static async launch(options: VllmOptions): Promise<VllmServer> {
    return new VllmServer(options, await freePort(), mkdtempSync(join(tmpdir(), 'lodestar-vllm-')));
  }

  /** Empties the prefix cache. */
  async resetPrefixCache(): Promise<void> {
    const { statusCode, body } = await request(`${this.url}/reset_prefix_cache`, { method: 'POST' });
    await body.dump();
    if (statusCode !== 200) throw new Error(`vLLM answered ${statusCode} to /reset_prefix_cache`);
  }

  /**
   * Steps since the start, their time, and the time that the machine took between them beyond what is hidden, ms. For
   * an engine that is idle.
   */
  steps(): { steps: number; stepMs: number; lostMs: number } {
    const file = join(this.folder, 'report.json');
    if (!existsSync(file)) return { steps: 0, stepMs: 0, lostMs: 0 };
    const { steps, step_s, lost_s } = reportSchema.parse(JSON.parse(readFileSync(file, 'utf8')));
    return { steps, stepMs: step_s * 1000, lostMs: lost_s * 1000 };
  }

  /** Stops all its processes where they are: their sockets stay open, and nothing answers. */
  freeze(): void {
    this.signal('SIGSTOP');
  }

  /** Lets all its processes go on. */
  thaw(): void {
    this.signal('SIGCONT');
  }

  /**
   * Stops the engine core alone: the API server goes on answering what it knows by itself, its health check for one.
   */
  freezeCore(): void {
    process.kill(this.corePid(), 'SIGSTOP');
  }

  thawCore(): void {
    process.kill(this.corePid(), 'SIGCONT');
  }

  /** Ends it and all its processes at once, as a crash of the host would. */
  async crash(): Promise<void> {
    const gone = this.gone();
    this.signal('SIGKILL');
    await gone;
  }

  /** Starts it again after a crash, on the same port; returns at once. */
  relaunch(): void {
    if (this.isRunning) throw new Error('vLLM still runs');
    this.child = this.spawn();
  }

  /** Stops it and its children, and waits until they are gone. */
  async stop(): Promise<void> {
    if (this.isRunning) {
      const gone = this.gone();
      this.signal('SIGTERM');
      const timer = setTimeout(() => this.signal('SIGKILL'), STOP_MS);
      await gone;
      clearTimeout(timer);
    }
    // The engine core is a process of its own and may outlive the API server.
    this.signal('SIGKILL');
    this.stopped = true;
    rmSync(this.folder, { recursive: true, force: true });
  }

  /**
   * Settles when it answers /health; throws with the end of its log if it ends before or takes longer than three
   * minutes.
   */
  async untilServing(): Promise<void> {
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

  /** The engine core is a process of its own in the group of the API server. */
  private corePid(): number {
    const found = execFileSync('pgrep', ['-g', String(this.child.pid), '-f', '^VLLM::EngineCor'], { encoding: 'utf8' });
    return Number(found.trim());
  }

  private spawn(): ChildProcess {
    const { serve, step, asyncScheduling, hiddenS, env } = this.options;
    const log = openSync(join(this.folder, 'log'), 'a');
    const child = spawn('bash', [join(rigScripts, 'serve.sh'), ...serveArguments(serve)], {
      detached: true,
      stdio: ['ignore', log, log],
      env: {
        ...process.env,
        PYTHON: rigPython,
        MODEL_DIR: modelFolder(),
        PORT: new URL(this.url).port,
        ...(typeof step === 'number' ? { FAKE_STEP: String(step) } : { FAKE_COEFF: coefficients(step) }),
        FAKE_ASYNC: asyncScheduling ? '1' : '0',
        ...(hiddenS === undefined ? {} : { FAKE_HIDDEN: String(hiddenS) }),
        FAKE_REPORT: join(this.folder, 'report.json'),
        ...env,
      },
    });
    closeSync(log);
    return child;
  }

  private get isRunning(): boolean {
    return this.child.exitCode === null && this.child.signalCode === null;
  }

  private gone(): Promise<void> {
    return this.isRunning ? new Promise((done) => this.child.once('exit', () => done())) : Promise.resolve();
  }

  private signal(signal: NodeJS.Signals): void {
    if (this.child.pid === undefined || this.stopped) return;
    try {
      process.kill(-this.child.pid, signal);
    } catch {
      // No process of the group is left.
    }
  }
}

/**
 * Host time between steps that does not count in a comparison: a GPU does not wait for a machine that other work keeps
 * busy.
 */
const COMPARED_HIDDEN_S = 0.05;

/** vLLM as the instance of a load. */
export function loadOptions(load: Load): VllmOptions {
  const { gpu, asyncScheduling, maxNumSeqs, maxBatchedTokens, blocks } = load;
  return {
    step: gpu,
    asyncScheduling,
    hiddenS: COMPARED_HIDDEN_S,
    serve: {
      'max-num-seqs': maxNumSeqs,
      'max-num-batched-tokens': maxBatchedTokens,
      'num-gpu-blocks-override': blocks,
      'max-model-len': Math.min(32_768, kvTokens(load)),
    },
  };
}

/**
 * Folder of the tiny model, made once for each version of its maker: that takes as long as half the start of a server.
 */
export function modelFolder(): string {
  const maker = join(rigScripts, 'mktiny.py');
  const version = createHash('sha256').update(readFileSync(maker)).digest('hex').slice(0, 12);
  const folder = join(rigFolder, `tiny-model-${version}`);
  if (existsSync(folder)) return folder;
  const made = mkdtempSync(`${folder}-`);
  execFileSync(rigPython, [maker, made], { stdio: 'ignore' });
  try {
    renameSync(made, folder);
  } catch (error) {
    // Another process has made it meanwhile.
    if (!existsSync(folder)) throw error;
    rmSync(made, { recursive: true });
  }
  return folder;
}

function serveArguments(serve: VllmOptions['serve']): string[] {
  return Object.entries(serve).flatMap(([name, value]) => [
    `--${name}`,
    ...(value === true ? [] : typeof value === 'object' ? value : [String(value)]),
  ]);
}

function coefficients({ c0, c1, c2, c3, c4, T0, c5 }: GpuProfile): string {
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
