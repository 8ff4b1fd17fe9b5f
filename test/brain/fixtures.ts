import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { defaultConfig, type Config } from '../../shared/config/index.ts';
import { packHashes, packTokens } from '../../shared/codec.ts';
import { seededRng, silentLog } from '../../shared/env.ts';
import { FEATURE_COUNT } from '../../shared/features.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import type { BlocksMessage, HelloMessage } from '../../shared/protocol.ts';
import type { Sample } from '../../shared/sample.ts';
import { toBytes } from '../../shared/table.ts';
import type { Peer } from '../../brain/connection.ts';
import { newCounters } from '../../brain/counters.ts';
import { type KeptStore, keptStoreIn } from '../../brain/kept-store.ts';
import type { BackendInfo } from '../../brain/predictor/backend.ts';
import type { FitRequest, FitResult } from '../../brain/predictor/fit.ts';
import type { Trainer } from '../../brain/train.ts';
import { reportOf } from '../helpers/reports.ts';
import { VirtualClock } from '../helpers/virtual-clock.ts';

export const TOKEN = 'a-token-for-tests-only';

export function testEnv(clock = new VirtualClock(), seed = 1) {
  return { clock, rng: seededRng(seed), log: silentLog };
}

/** A folder that `remove` deletes. */
export function tempDir(): { dir: string; remove(): void } {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-brain-'));
  return { dir, remove: () => rmSync(dir, { recursive: true, force: true }) };
}

/** A store in a folder, as the brain has it. */
export function storeIn(dir: string, clock = new VirtualClock(), log = silentLog): KeptStore {
  return keptStoreIn(dir, { clock, log }, newCounters());
}

/** Configuration of a brain on any free port. */
export function brainConfig(stateDir: string, brain: Partial<Config['brain']> = {}): Config {
  const config = defaultConfig(TOKEN);
  return { ...config, brain: { ...config.brain, host: '127.0.0.1', port: 0, stateDir, ...brain } };
}

export function hello(agent: string, more: Partial<HelloMessage> = {}): HelloMessage {
  return {
    t: 'hello',
    protocol: 1,
    protocolOldest: 1,
    featureSchema: 1,
    agent,
    epoch: 1,
    credential: `credential-of-${agent}-`.padEnd(32, 'x'),
    version: '0.0.0',
    doorUrl: `http://${agent}:8080`,
    capabilities: [],
    ...more,
  };
}

export function report(instance: string, agent: string, more: Partial<InstanceReport> = {}): InstanceReport {
  const limits = { kvTokens: 100_000, blockTokens: 16, maxNumSeqs: 256, maxBatchedTokens: 2048, maxModelLen: 32_768 };
  const kept = { agent, doorUrl: `http://${agent}:8080`, kind: 'm A30', limits, cache: null };
  return reportOf(instance, { ...kept, ...more }, { meanOutputTokens: 0 });
}

export function blocks(instance: string, seq: number, add: number[], more: Partial<BlocksMessage> = {}): BlocksMessage {
  return {
    t: 'blocks',
    instance,
    incarnation: 1,
    seq,
    reset: false,
    add: packHashes(add),
    remove: packHashes([]),
    tokens: packTokens(add.map(() => 0)),
    ...more,
  };
}

/** A sample whose TTFT and TPOT are the prior's times e^ttft and e^tpot. */
export function sample(row: Float32Array, ttft: number, tpot: number, more: Partial<Sample> = {}): Sample {
  return {
    instance: 'i',
    kind: 'm A30',
    model: 'm',
    atWallMs: 0,
    row: toBytes(row),
    priorTtftMs: 200,
    priorTpotMs: 25,
    predictedTtftMs: 200,
    predictedTtftP90Ms: 300,
    regime: 'idle',
    policy: 'prefix-load',
    reason: 'exploit',
    propensity: 1,
    tableVersion: 1,
    stream: true,
    promptBytes: 4000,
    promptTokens: 1000,
    hitTokens: 0,
    outcome: {
      status: 'ok',
      ttftMs: 200 * Math.exp(ttft),
      tpotMs: 25 * Math.exp(tpot),
      e2eMs: 3000,
      outputTokens: 100,
      promptTokens: 1000,
      cachedTokens: 0,
    },
    ...more,
  };
}

/** A feature row with everything 0 but what is given, by position. */
export function featureRow(values: Record<number, number> = {}): Float32Array {
  const row = new Float32Array(FEATURE_COUNT);
  for (const [at, value] of Object.entries(values)) row[Number(at)] = value;
  return row;
}

/** A peer that keeps what it is sent. */
export class FakePeer implements Peer {
  readonly agent: string;
  readonly epoch = 1;
  readonly hello: HelloMessage;
  readonly owed: Peer['owed'] = { state: false, table: false, blocks: new Set() };
  readonly frames: Uint8Array[] = [];
  isSlow = false;

  constructor(agent: string) {
    this.agent = agent;
    this.hello = hello(agent);
  }

  slow(): boolean {
    return this.isSlow;
  }

  ready(): boolean {
    return !this.isSlow;
  }

  send(frame: Uint8Array): void {
    this.frames.push(frame);
  }
}

/** A trainer that answers with what the test says. */
export class FakeTrainer implements Trainer {
  readonly requests: FitRequest[] = [];
  private readonly answer: (request: FitRequest) => Promise<FitResult>;

  constructor(answer: (request: FitRequest) => Promise<FitResult> = () => new Promise(() => {})) {
    this.answer = answer;
  }

  async start(): Promise<BackendInfo> {
    return { name: 'cpu', gpu: false, tried: [], memory: '' };
  }

  fit(request: FitRequest): Promise<FitResult> {
    this.requests.push(request);
    return this.answer(request);
  }

  async close(): Promise<void> {}
}
