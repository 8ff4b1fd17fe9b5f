import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import type { DoorInstance } from '../../../agent/door/door-instance.ts';
import { type RunningAgent, startAgent } from '../../../agent/main.ts';
import type { Receipt } from '../../../agent/entry/receipts.ts';
import { loadConfig } from '../../../shared/config/index.ts';
import { realClock, seededRng, silentLog } from '../../../shared/env.ts';
import { loadGpus } from '../../../sim/engine/gpus.ts';
import { TcpProxy } from '../../helpers/tcp-proxy.ts';
import { freePort } from '../free-port.ts';
import { VllmServer } from '../server.ts';
import { until } from '../until.ts';

const TOKEN = 'bench-fleet-token-0123456789';
const ID = 'a30';
/** vLLM's null block included: a few seconds of traffic fill it. */
export const BLOCKS = 1200;
const MAX_SEQUENCES = 32;
const MAX_BATCHED_TOKENS = 2048;
const MAX_MODEL_TOKENS = 8000;
const MAX_RECEIPTS = 1000;

/**
 * One real vLLM as an A30 with a small cache, and its agent, without a brain. KV events, where they are on, come
 * through links that can be cut.
 */
export class ViewRig {
  readonly server: VllmServer;
  readonly agent: RunningAgent;
  readonly door: DoorInstance;
  /** to vLLM's ports of events and replay; none without events */
  readonly links: readonly TcpProxy[];
  /** vLLM's own ports of events and replay */
  readonly endpoints: readonly string[];
  private readonly dir: string;
  private readonly dispatcher = new Agent({ pipelining: 1 });
  private sent = 0;

  private constructor(
    server: VllmServer,
    agent: RunningAgent,
    door: DoorInstance,
    links: readonly TcpProxy[],
    endpoints: readonly string[],
    dir: string,
  ) {
    this.server = server;
    this.agent = agent;
    this.door = door;
    this.links = links;
    this.endpoints = endpoints;
    this.dir = dir;
  }

  static async start(withEvents: boolean): Promise<ViewRig> {
    const gpu = loadGpus().get('A30');
    if (!gpu) throw new Error('A30 is missing in the calibration');
    const ports = withEvents ? [await freePort(), await freePort()] : [];
    const env: Record<string, string> = withEvents
      ? { EVENTS_PORT: String(ports[0]), REPLAY_PORT: String(ports[1]) }
      : {};
    const serve = {
      'num-gpu-blocks-override': BLOCKS,
      'max-num-seqs': MAX_SEQUENCES,
      'max-num-batched-tokens': MAX_BATCHED_TOKENS,
      'max-model-len': MAX_MODEL_TOKENS,
    };
    const server = await VllmServer.start({ step: gpu, serve, env });
    const endpoints = ports.map((port) => `tcp://127.0.0.1:${port}`);
    const links = await Promise.all(endpoints.map((endpoint) => TcpProxy.start(endpoint)));
    const dir = mkdtempSync(join(tmpdir(), 'lodestar-cache-view-'));
    const kvEvents = withEvents
      ? { kvEvents: { endpoint: links[0]?.endpoint, replayEndpoint: links[1]?.endpoint } }
      : {};
    const instance = {
      id: ID,
      url: server.url,
      maxNumSeqs: MAX_SEQUENCES,
      maxBatchedTokens: MAX_BATCHED_TOKENS,
      ...kvEvents,
    };
    const section = {
      id: 'agent',
      host: '127.0.0.1',
      port: 0,
      advertiseUrl: 'http://127.0.0.1:0',
      stateDir: dir,
      brainUrl: '',
      nvidiaSmiPath: '/nonexistent/nvidia-smi',
      instances: [instance],
    };
    const config = loadConfig({ env: {}, overrides: { token: TOKEN, agent: section } });
    const agent = await startAgent(config.agent, TOKEN, { clock: realClock, rng: seededRng(1), log: silentLog });
    const source = withEvents ? 'events' : 'shadow';
    let door: DoorInstance | undefined;
    await until(`the view of the cache is by ${source}`, () => {
      agent.context.instances.readLocal(false);
      door = [...agent.context.instances.views.values()][0]?.local;
      return door?.health === 'up' && door.cache.figures().source === source;
    });
    return new ViewRig(server, agent, door as DoorInstance, links, endpoints, dir);
  }

  /** Sends a request through the agent under a name that its receipt shows too; settles with the text of the answer. */
  send = async (path: string, body: object): Promise<string> => {
    const headers = { 'content-type': 'application/json' };
    const options = {
      method: 'POST' as const,
      headers,
      body: JSON.stringify(body),
      headersTimeout: 0,
      bodyTimeout: 0,
      dispatcher: this.dispatcher,
    };
    const answer = await request(`http://127.0.0.1:${this.agent.port}${path}?request=${this.sent++}`, options);
    const text = await answer.body.text();
    if (answer.statusCode !== 200) throw new Error(`the agent answered ${answer.statusCode}: ${text.slice(0, 500)}`);
    return text.split('\n\n').map(textOf).join('');
  };

  /** Tokens that the entry believed cached when it chose, by path and query of the request; of the newest thousand. */
  async entryHits(): Promise<Map<string, number>> {
    const { body } = await request(`http://127.0.0.1:${this.agent.port}/lodestar/receipts?limit=${MAX_RECEIPTS}`, {
      headers: { authorization: `Bearer ${TOKEN}` },
    });
    const receipts = (await body.json()) as Receipt[];
    return new Map(
      receipts.map(({ path, candidates, chosen }) => [
        path,
        candidates.find(({ instance }) => instance === chosen)?.hitTokens ?? 0,
      ]),
    );
  }

  async stop(): Promise<void> {
    await this.agent.close();
    await this.dispatcher.destroy();
    await Promise.all(this.links.map((link) => link.close()));
    await this.server.stop();
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function textOf(event: string): string {
  if (!event.startsWith('data: {')) return '';
  const { choices } = JSON.parse(event.slice('data: '.length)) as {
    choices: { text?: string; delta?: { content?: string } }[];
  };
  return choices[0]?.text ?? choices[0]?.delta?.content ?? '';
}
