import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { stringify } from 'yaml';
import type { Receipt } from '../../../agent/entry/receipts.ts';
import { type LodestarProcess, startProcess } from '../../helpers/process.ts';
import { freePort } from '../../helpers/free-port.ts';
import { isIdle, scrape, type ServerFigures } from '../scrape.ts';
import { VllmServer } from '../server.ts';
import { until } from '../until.ts';
import { Link } from './link.ts';

const ENV = { LODESTAR_TOKEN: 'faults-fleet-token-0123456789', LODESTAR_LOG_LEVEL: 'info' };
const HOST = '127.0.0.1';
/** Time of every step of both servers, s. */
const STEP_S = 0.02;
const MAX_SEQUENCES = 32;
const MAX_BATCHED_TOKENS = 512;
const RECEIPTS = 1000;

/** The part of an agent's status page that is looked at here. */
export interface AgentStatus {
  instances: { instance: string; health: string; doubt: string | null; ledger: { inFlight: number } | null }[];
}

/** Agents of one scenario as processes of their own. Requests are sent to `entry`. */
export interface Topology {
  entry: AgentProcess;
  /** another agent, whose engine is `a`; the entry's own is then `b`. undefined: both are the entry's */
  door: AgentProcess | undefined;
  /** between entry and door */
  link: Link | undefined;
  stop(): Promise<void>;
}

/** One agent, which can be killed and started again under the same address. */
export class AgentProcess {
  private running: LodestarProcess | undefined;
  private readonly config: string;
  private earlierLog = '';

  constructor(config: string) {
    this.config = config;
  }

  async start(): Promise<void> {
    if (this.running) this.earlierLog += this.running.log();
    this.running = await startProcess(['agent', '--config', this.config], ENV);
  }

  get url(): string {
    return this.process.url;
  }

  /** Everything that it has logged, over all its starts. */
  log(): string {
    return this.earlierLog + this.process.log();
  }

  signal(signal: NodeJS.Signals): void {
    this.process.child.kill(signal);
  }

  kill(): Promise<void> {
    return this.process.kill();
  }

  async status(): Promise<AgentStatus> {
    return (await (await fetch(`${this.url}/lodestar/status`)).json()) as AgentStatus;
  }

  /** Its decisions since that moment (wall clock, ms), oldest first: up to a thousand. */
  async receipts(sinceWallMs: number): Promise<Receipt[]> {
    const all = (await (
      await fetch(`${this.url}/lodestar/receipts?limit=${RECEIPTS}`, {
        headers: { authorization: `Bearer ${ENV.LODESTAR_TOKEN}` },
      })
    ).json()) as Receipt[];
    return all.filter((one) => one.atWallMs >= sinceWallMs).toSorted((x, y) => x.atWallMs - y.atWallMs);
  }

  async health(instance: string): Promise<string | undefined> {
    return (await this.status()).instances.find((one) => one.instance === instance)?.health;
  }

  private get process(): LodestarProcess {
    if (!this.running) throw new Error('the agent has not been started');
    return this.running;
  }
}

/** Two real vLLM servers, `a` and `b`, with steps of 20 ms, for all scenarios; the agents are those of one scenario. */
export class FaultRig {
  readonly a: VllmServer;
  readonly b: VllmServer;
  private readonly dir = mkdtempSync(join(tmpdir(), 'lodestar-faults-'));
  private topologies = 0;

  private constructor(a: VllmServer, b: VllmServer) {
    this.a = a;
    this.b = b;
  }

  static async start(): Promise<FaultRig> {
    const [a, b] = await Promise.all([startServer(), startServer()]);
    return new FaultRig(a, b);
  }

  async stop(): Promise<void> {
    for (const server of [this.a, this.b]) server.thaw();
    await Promise.all([this.a.stop(), this.b.stop()]);
    rmSync(this.dir, { recursive: true, force: true });
  }

  /** Counters and gauges of both, added up. */
  async totals(): Promise<ServerFigures> {
    const [a, b] = await Promise.all([scrape(this.a.url), scrape(this.b.url)]);
    return {
      ...a,
      running: a.running + b.running,
      waiting: a.waiting + b.waiting,
      generationTokens: a.generationTokens + b.generationTokens,
    };
  }

  async rest(): Promise<void> {
    await until(
      'both servers are at rest',
      async () => isIdle(await scrape(this.a.url)) && isIdle(await scrape(this.b.url)),
    );
  }

  /** One agent that is the door of both servers, or of `a` alone. */
  async single(settings: object = {}, servers: readonly ('a' | 'b')[] = ['a', 'b']): Promise<Topology> {
    const entry = new AgentProcess(
      this.agentConfig('entry', {
        brainUrl: '',
        port: 0,
        advertiseUrl: `http://${HOST}:0`,
        instances: servers.map((id) => this.instance(id)),
        ...settings,
      }),
    );
    await entry.start();
    const stop = (): Promise<void> => entry.kill();
    return settled({ entry, door: undefined, link: undefined, stop }, servers);
  }

  /**
   * Two agents: the entry, whose own engine is `b`, reaches the door of `a` over a link that can be cut; and a brain,
   * which reaches both.
   */
  async pair(settings: object = {}): Promise<Topology> {
    const doorPort = await freePort();
    const link = await Link.start(doorPort);
    const brain = await startProcess(
      [
        'brain',
        '--host',
        HOST,
        '--port',
        '0',
        '--state-dir',
        join(this.dir, `brain-${this.topologies}`),
        '--set',
        'brain.backend=cpu',
      ],
      ENV,
    );
    const brainUrl = brain.url.replace('http', 'ws');
    const entry = new AgentProcess(
      this.agentConfig('entry', {
        brainUrl,
        port: 0,
        advertiseUrl: `http://${HOST}:0`,
        instances: [this.instance('b')],
        ...settings,
      }),
    );
    const door = new AgentProcess(
      this.agentConfig('door', {
        brainUrl,
        port: doorPort,
        advertiseUrl: link.url,
        instances: [this.instance('a')],
        ...settings,
      }),
    );
    await Promise.all([entry.start(), door.start()]);
    const stop = async (): Promise<void> => {
      for (const agent of [entry, door]) agent.signal('SIGCONT');
      await Promise.all([entry.kill(), door.kill(), brain.kill(), link.close()]);
    };
    return settled({ entry, door, link, stop }, ['a', 'b']);
  }

  private instance(id: 'a' | 'b'): object {
    return {
      id,
      url: this[id].url,
      kind: { gpu: 'fake' },
      maxNumSeqs: MAX_SEQUENCES,
      maxBatchedTokens: MAX_BATCHED_TOKENS,
    };
  }

  private agentConfig(id: string, section: object): string {
    const folder = join(this.dir, `${(this.topologies += 1)}-${id}`);
    mkdirSync(folder, { recursive: true });
    const file = join(folder, 'agent.yaml');
    writeFileSync(
      file,
      stringify({
        agent: {
          id,
          host: HOST,
          policy: 'round-robin',
          stateDir: folder,
          nvidiaSmiPath: '/nonexistent/nvidia-smi',
          ...section,
        },
      }),
    );
    return file;
  }
}

async function settled(topology: Topology, instances: readonly string[]): Promise<Topology> {
  const agents = [topology.entry, ...(topology.door ? [topology.door] : [])];
  const isUp = async (agent: AgentProcess): Promise<boolean> => {
    const up = (await agent.status()).instances.filter((one) => one.health === 'up').map((one) => one.instance);
    return instances.every((one) => up.includes(one));
  };
  try {
    await until('every agent sees every server up', async () => (await Promise.all(agents.map(isUp))).every(Boolean));
  } catch (error) {
    await topology.stop();
    throw error;
  }
  return topology;
}

function startServer(): Promise<VllmServer> {
  return VllmServer.start({
    step: STEP_S,
    serve: {
      'max-num-seqs': MAX_SEQUENCES,
      'max-num-batched-tokens': MAX_BATCHED_TOKENS,
      'num-gpu-blocks-override': 4000,
      'max-model-len': 8192,
      'disable-uvicorn-access-log': true,
    },
  });
}
