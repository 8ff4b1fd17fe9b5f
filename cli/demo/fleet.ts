import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { stringify } from 'yaml';
import { nvidiaSmiStandinPath } from '../../sim/engine/gpu-state.ts';
import type { LodestarError } from '../../shared/errors.ts';
import { Child } from './child.ts';
import { portOrAny } from './ports.ts';

const HOST = '127.0.0.1';
const BRAIN_PORT = 7400;
const FIRST_AGENT_PORT = 8080;
const FIRST_ENGINE_PORT = 9001;
const DRAIN_MS = 2000;
/** Of the emulated engines; the floor of TTFT is computed with the same. */
export const FRONT_END_MS = 8;

/** The instances of the demo's fleet: three kinds of GPU, two of one kind. */
export const INSTANCES = [
  { id: 'a30-1', gpu: 'A30' },
  { id: 'a30-2', gpu: 'A30' },
  { id: 'l20', gpu: 'L20' },
  { id: 'a100', gpu: 'A100' },
] as const;

/** One emulated host: an engine and the agent beside it. */
export interface FleetNode {
  instance: string;
  gpu: string;
  engineUrl: string;
  agentUrl: string;
}

export interface FleetOptions {
  /** Fresh folder for state, configuration and, unless `logs` says otherwise, logs. */
  folder: string;
  logs: string;
  env: Readonly<Record<string, string | undefined>>;
  /** Called when a process ends that nobody stopped. */
  onDeath: (error: LodestarError) => void;
  /** Called as each process is ready. */
  onReady: (name: string, url: string) => void;
}

/** The processes of the demo: four engines, a brain, four agents. */
export class Fleet {
  /** Secret of this fleet; the processes get it by environment. */
  readonly token: string = randomBytes(32).toString('base64url');
  brainUrl = '';
  nodes: FleetNode[] = [];
  private readonly options: FleetOptions;
  private readonly children: Child[] = [];
  private readonly env: Record<string, string | undefined>;
  private stopped = false;

  constructor(options: FleetOptions) {
    this.options = options;
    // What a user has set for a fleet of their own must not reach this one.
    const own = Object.entries(options.env).filter(([name]) => !name.startsWith('LODESTAR_'));
    this.env = { ...Object.fromEntries(own), LODESTAR_NO_BUILD: '1', LODESTAR_TOKEN: this.token };
  }

  /** Starts everything; settles when each process listens. Rejects with PROCESS_DIED. */
  async start(): Promise<void> {
    const [brain, ...engines] = await Promise.all([
      this.startBrain(),
      ...INSTANCES.map((instance, at) => this.startEngine(instance, at)),
    ]);
    this.brainUrl = brain;
    this.nodes = await Promise.all(
      INSTANCES.map(async ({ id, gpu }, at) => {
        const engineUrl = engines[at] ?? '';
        return { instance: id, gpu, engineUrl, agentUrl: await this.startAgent(id, at, engineUrl) };
      }),
    );
  }

  /** Name and process id of what runs, for figures of CPU and memory. */
  processes(): { name: string; pid: number }[] {
    return this.children.flatMap(({ name, pid }) => (pid === undefined ? [] : [{ name, pid }]));
  }

  /** Stops agents, so that they end their requests, then engines and brain. Settles when nothing runs any more. */
  async stop(): Promise<void> {
    this.stopped = true;
    const agents = this.children.filter(({ name }) => name.startsWith('agent'));
    await Promise.all(agents.map((child) => child.stop()));
    await Promise.all(this.children.map((child) => child.stop()));
  }

  /** Ends everything at once. */
  kill(): void {
    this.stopped = true;
    for (const child of this.children) child.kill();
  }

  private async startBrain(): Promise<string> {
    const port = await portOrAny(BRAIN_PORT);
    return this.launch('brain', [
      'brain',
      '--host',
      HOST,
      '--port',
      String(port),
      '--state-dir',
      this.makeFolder('brain'),
    ]);
  }

  private async startEngine({ id, gpu }: (typeof INSTANCES)[number], at: number): Promise<string> {
    const port = await portOrAny(FIRST_ENGINE_PORT + at);
    const flags = [
      '--gpu',
      gpu,
      '--host',
      HOST,
      '--port',
      String(port),
      '--front-end-ms',
      String(FRONT_END_MS),
      '--seed',
      String(at + 1),
    ];
    return this.launch(`engine ${id}`, ['engine', ...flags, '--gpu-state-file', this.gpuStateFile(id)]);
  }

  private async startAgent(id: string, at: number, engineUrl: string): Promise<string> {
    const port = await portOrAny(FIRST_AGENT_PORT + at);
    const folder = this.makeFolder(`agent-${id}`);
    const config = join(folder, 'lodestar.yaml');
    const agent = {
      id: `host-${at + 1}`,
      host: HOST,
      port,
      advertiseUrl: `http://${HOST}:${port}`,
      brainUrl: this.brainUrl.replace(/^http/, 'ws'),
      stateDir: this.makeFolder(`agent-${id}/state`),
      instances: [{ id, url: engineUrl }],
      nvidiaSmiPath: writeStandIn(folder, this.gpuStateFile(id)),
      drainTimeoutMs: DRAIN_MS,
    };
    writeFileSync(config, stringify({ agent }));
    return this.launch(`agent ${id}`, ['agent', '--config', config]);
  }

  private async launch(name: string, args: readonly string[]): Promise<string> {
    const { logs, onDeath, onReady } = this.options;
    // Stopped while it was still starting: what has not been launched must not be any more.
    if (this.stopped) return '';
    const child = new Child({
      name,
      args,
      env: this.env,
      logFile: join(logs, `${name.replace(' ', '-')}.log`),
      onDeath,
    });
    this.children.push(child);
    const url = await child.ready;
    onReady(name, url);
    return url;
  }

  private gpuStateFile(id: string): string {
    return join(this.options.folder, `gpu-${id}.json`);
  }

  private makeFolder(name: string): string {
    const folder = join(this.options.folder, name);
    mkdirSync(folder, { recursive: true });
    return folder;
  }
}

/** An executable of the name `nvidia-smi` that reports the GPU of one emulated engine. */
function writeStandIn(folder: string, stateFile: string): string {
  const path = join(folder, 'nvidia-smi');
  const words = [process.execPath, nvidiaSmiStandinPath].map(shellQuote).join(' ');
  writeFileSync(path, `#!/bin/sh\nLODESTAR_STANDIN_STATE=${shellQuote(stateFile)} exec ${words} "$@"\n`, {
    mode: 0o755,
  });
  return path;
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
