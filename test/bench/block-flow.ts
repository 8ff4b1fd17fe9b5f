import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BrainLink } from '../../agent/link/brain-link.ts';
import { makeBrainReader } from '../../agent/link/brain-reader.ts';
import { type AgentContext, applyTable, makeContext } from '../../agent/entry/context.ts';
import { SampleQueue } from '../../agent/entry/samples.ts';
import { type Brain, startBrain } from '../../brain/main.ts';
import { packHashes, packTokens } from '../../shared/codec.ts';
import { loadConfig } from '../../shared/config/index.ts';
import { type Env, realClock, type Rng, seededRng, silentLog } from '../../shared/env.ts';
import { openTable } from '../../shared/table.ts';
import { FaultLog } from '../../shared/fault-log.ts';
import { packageVersion } from '../../shared/package-root.ts';
import { reportOf } from '../helpers/reports.ts';
import { type Figure, quantileOf } from './figure.ts';

const TOKEN = 'bench-token-0123456789';
const INSTANCE = 'door/vllm';
const ENTRIES = 16;
const TICK_MS = 20;
const EVENTS_PER_S = 50_000;
const SECONDS = 10;
/** Blocks of a full cache: 1.6 million tokens. */
const CACHE_BLOCKS = 100_000;
/** Blocks of other instances in the index of each entry. */
const OTHER_BLOCKS = 150_000;
/** Blocks of one prompt, as they come and go. */
const RUN = 64;
/** Backlog that is no queue: a tick under way. */
const BACKLOG_MS = 100;
const WAIT_MS = 30_000;

/**
 * Block changes from one door, through the brain, to 16 entries: real WebSockets, hub, codec and indexes, all in this
 * one process. A cache that is full takes in as many blocks as it evicts, 50,000 changes a second in ticks of 20 ms;
 * then as many as one core carries.
 */
export async function blockFlowFigures(): Promise<Figure[]> {
  const dir = mkdtempSync(join(tmpdir(), 'lodestar-bench-'));
  const env: Env = { clock: realClock, rng: seededRng(1), log: silentLog };
  const idle = {
    start: () => Promise.resolve({ name: 'none', gpu: false, tried: [], memory: '' }),
    fit: () => new Promise<never>(() => undefined),
    close: () => Promise.resolve(),
  };
  const config = loadConfig({
    env: { LODESTAR_TOKEN: TOKEN },
    overrides: { brain: { host: '127.0.0.1', port: 0, stateDir: join(dir, 'brain') } },
  });
  const brain = await startBrain(config, env, idle as never);
  const flow = new Flow(brain, dir, env);
  try {
    await flow.connect();
    return [...(await flow.paced()), await flow.unpaced(), await flow.equalMirrors()];
  } finally {
    flow.close();
    await brain.close();
    rmSync(dir, { recursive: true, force: true });
  }
}

class Flow {
  private readonly rng: Rng = seededRng(7);
  private readonly cache: number[] = [];
  private readonly entries: { context: AgentContext; link: BrainLink }[] = [];
  private readonly door: BrainLink;
  private seq = 0;
  /** where the oldest block of the cache is */
  private oldest = 0;

  constructor(brain: Brain, dir: string, env: Env) {
    const url = brain.url.replace('http', 'ws');
    const hello = (agent: string) => ({
      agent,
      epoch: 1,
      credential: `credential of ${agent}`,
      version: packageVersion,
      doorUrl: 'http://127.0.0.1:1',
    });
    this.door = new BrainLink({
      url,
      token: TOKEN,
      hello: hello('door'),
      env,
      samples: new SampleQueue(10),
      faults: new FaultLog(env.log),
      onMessage: () => undefined,
    });
    for (let i = 0; i < ENTRIES; i++) {
      const id = `entry${i}`;
      const { agent } = loadConfig({
        env: { LODESTAR_TOKEN: TOKEN },
        overrides: { agent: { id, stateDir: join(dir, id) } },
      });
      const context = makeContext(agent, TOKEN, env, 1, []);
      for (let at = 0; at < OTHER_BLOCKS; at += RUN)
        context.instances.index.addAll(`other${(at / RUN) % 63}`, this.newHashes(RUN), []);
      const onMessage = makeBrainReader(context, {
        open: openTable,
        onTable: (table) => applyTable(context, new Map(), table),
        keep: () => undefined,
        resync: (instances) => link.resync(instances),
        resend: () => undefined,
        resendBlocks: () => undefined,
      });
      const link: BrainLink = new BrainLink({
        url,
        token: TOKEN,
        hello: hello(id),
        env,
        samples: context.samples,
        faults: new FaultLog(env.log),
        onMessage,
      });
      this.entries.push({ context, link });
    }
  }

  async connect(): Promise<void> {
    await until('all are connected', () => this.door.connected && this.entries.every(({ link }) => link.connected));
    this.report();
    await until('the entries know the instance', () =>
      this.entries.every(({ context }) => context.instances.views.has(INSTANCE)),
    );
    const first = this.newHashes(CACHE_BLOCKS);
    this.cache.push(...first);
    for (let at = 0; at < first.length; at += 50_000) this.send(first.slice(at, at + 50_000), [], at === 0);
    await until('the entries have the whole view', () => this.behind() === 0);
  }

  close(): void {
    this.door.close();
    for (const { link } of this.entries) link.close();
  }

  /** 50,000 changes a second: what they cost, and whether anything waits. */
  async paced(): Promise<Figure[]> {
    const ticks = (SECONDS * 1000) / TICK_MS;
    const backlogs: number[] = [];
    const lateMs: number[] = [];
    const cpu = process.cpuUsage();
    const startMs = performance.now();
    for (let tick = 1; tick <= ticks; tick++) {
      backlogs.push(this.behind() * TICK_MS);
      this.turnOver((EVENTS_PER_S * TICK_MS) / 1000 / 2);
      if (tick % 10 === 0) this.report();
      const dueMs = startMs + tick * TICK_MS;
      await sleep(Math.max(0, dueMs - performance.now()));
      lateMs.push(performance.now() - dueMs);
    }
    await until('the last delta is applied', () => this.behind() === 0);
    const tookMs = performance.now() - startMs;
    const { user, system } = process.cpuUsage(cpu);
    const rate = (EVENTS_PER_S * SECONDS * 1000) / tookMs;
    const share = (user + system) / 1000 / tookMs;
    const last = Math.max(...backlogs.slice(-ticks / 10));
    return [
      {
        name: `block changes a second to ${ENTRIES} entries`,
        value: rate,
        unit: '/s',
        target: `>= ${0.98 * EVENTS_PER_S} /s`,
        ok: rate >= 0.98 * EVENTS_PER_S,
      },
      {
        name: 'of one core: door, brain and all entries',
        value: 100 * share,
        unit: '%',
        target: '<= 100 %',
        ok: share <= 1,
      },
      { name: 'deltas not applied yet, p50', value: quantileOf(backlogs, 0.5), unit: 'ms' },
      {
        name: 'deltas not applied yet, most in the last second',
        value: last,
        unit: 'ms',
        target: `<= ${BACKLOG_MS} ms`,
        ok: last <= BACKLOG_MS,
      },
      { name: 'tick late, p99', value: quantileOf(lateMs, 0.99), unit: 'ms' },
    ];
  }

  /** The next tick as soon as all entries have applied the last but one. */
  async unpaced(): Promise<Figure> {
    const startMs = performance.now();
    let events = 0;
    while (performance.now() - startMs < (SECONDS * 1000) / 2) {
      this.turnOver(500);
      events += 1000;
      await until('the delta is applied', () => this.behind() <= 1);
    }
    return { name: 'most that one core carries', value: events / ((performance.now() - startMs) / 1000), unit: '/s' };
  }

  /** 1 if every entry holds exactly what the door has. */
  async equalMirrors(): Promise<Figure> {
    await until('the last delta is applied', () => this.behind() === 0);
    const equal = this.entries.every(
      ({ context: { instances } }) =>
        instances.index.blocksOf(INSTANCE) === this.cache.length &&
        this.cache.every((hash) => instances.index.holds(INSTANCE, hash)),
    );
    return { name: 'all mirrors equal the cache at the end', value: Number(equal), unit: '', target: '1', ok: equal };
  }

  /** As many blocks come as go: the oldest go. */
  private turnOver(n: number): void {
    const come = this.newHashes(n);
    const go: number[] = [];
    for (const hash of come) {
      go.push(this.cache[this.oldest] as number);
      this.cache[this.oldest] = hash;
      this.oldest = (this.oldest + 1) % this.cache.length;
    }
    this.send(come, go, false);
  }

  private send(add: number[], remove: number[], reset: boolean): void {
    const tokens = packTokens(add.map((_, i) => 16 * (i % RUN) + 16));
    this.door.sendBlocks({
      t: 'blocks',
      instance: INSTANCE,
      incarnation: 1,
      seq: this.seq++,
      reset,
      add: packHashes(add),
      remove: packHashes(remove),
      tokens,
    });
  }

  private report(): void {
    this.door.sendReports([reportOf(INSTANCE, { agent: 'door', seq: this.seq + 1 })]);
  }

  /** Deltas that the last entry has not applied. */
  private behind(): number {
    return (
      this.seq -
      1 -
      Math.min(...this.entries.map(({ context }) => context.instances.views.get(INSTANCE)?.blocksSeq ?? -1))
    );
  }

  private newHashes(n: number): number[] {
    return Array.from(
      { length: n },
      () => Math.floor(this.rng() * 2 ** 21) * 2 ** 32 + Math.floor(this.rng() * 2 ** 32) || 1,
    );
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(what: string, holds: () => boolean): Promise<void> {
  const endMs = performance.now() + WAIT_MS;
  while (!holds()) {
    if (performance.now() > endMs) throw new Error(`${what}: not within ${WAIT_MS} ms`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}
