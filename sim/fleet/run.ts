import { BrainCore } from '../../brain/core.ts';
import { newCounters } from '../../brain/counters.ts';
import { InThreadTrainer } from '../../brain/train.ts';
import type { ObjectiveName } from '../../shared/choice/objectives/index.ts';
import { policies, type PolicyName } from '../../shared/choice/policies/index.ts';
import type { Policy, PolicyKind } from '../../shared/choice/policies/policy.ts';
import { type BrainConfig, defaultConfig } from '../../shared/config/index.ts';
import { type Env, type Rng, seededRng, silentLog } from '../../shared/env.ts';
import type { CacheSourceName } from './cache-source.ts';
import { SimClock } from './clock.ts';
import type { Cluster, ClusterEvent } from './cluster.ts';
import { SimDoor } from './door.ts';
import { type ClientOutcome, SimEntry } from './entry.ts';
import { MemoryStore } from './memory-store.ts';
import { SimHub } from './network.ts';
import { Oracle } from './oracle.ts';
import type { SimRequest } from './plan.ts';
import { type Tamper, tamperedHandlers } from './tamper.ts';
import { SimTrainer } from './trainer.ts';

/** `oracle` exists in simulation alone: it knows what no router can. */
export type SimPolicy = PolicyName | 'oracle';

export interface RunOptions {
  cluster: Cluster;
  /** in order of arrival, ms from the start of the run */
  requests: readonly SimRequest[];
  policy: SimPolicy;
  objective: ObjectiveName;
  /** sent with each request as SLO headers, where given */
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
  entries: number;
  seed: number;
  /** changes to the brain's configuration */
  brain?: Partial<BrainConfig> | undefined;
  /** falsifies what agents tell */
  tamper?: Tamper | undefined;
  /** what doors know of their caches; `shadow` if absent */
  cacheSource?: CacheSourceName | undefined;
}

/** What a run leaves behind. */
export interface RunRecord {
  outcomes: ClientOutcome[];
  instances: { id: string; gpu: string; requests: number; busyRatio: number; preemptions: number }[];
  /** virtual ms since the first arrival could have come, and outcomes seen until then; null: never trusted */
  firstTrusted: { atMs: number; requests: number } | null;
  /** virtual ms from the start of traffic to the last outcome */
  spanMs: number;
  events: number;
}

/** Agents report and the first tables travel before traffic begins. */
const SETTLE_MS = 2_000;
/** What has not ended this long after the last arrival counts as failed. */
const PATIENCE_MS = 1_800_000;
/** Share of decisions whose regret is looked at: each costs a simulation of every instance. */
const REGRET_EVERY = 10;
const BACKEND = { backend: 'wasm', tfjsNodeGpuDir: '', gpuMemoryLimitMb: 512 } as const;
/** One backend serves all runs of a process: its start takes longer than many runs. */
const trainer = new InThreadTrainer(BACKEND);

/** Runs one policy over one trace on one cluster, on virtual time. The same options give the same record. */
export async function runPolicy(options: RunOptions): Promise<RunRecord> {
  return new World(options).run();
}

/** A fleet on virtual time: doors with engines, entries, a brain, and the network between them. */
class World {
  private readonly options: RunOptions;
  private readonly clock = new SimClock();
  private readonly brain: BrainCore<SimHub>;
  private readonly doors = new Map<string, SimDoor>();
  private readonly entries: SimEntry[] = [];
  private readonly outcomes: ClientOutcome[] = [];
  private readonly traffic: Rng;
  private readonly oracle: Oracle;
  private central: Policy | undefined;
  private readonly deaths = new Map<SimDoor, number>();
  private firstTrusted: RunRecord['firstTrusted'] = null;

  constructor(options: RunOptions) {
    const { cluster, seed } = options;
    this.options = options;
    this.traffic = seededRng(seed * 7919 + 1);
    this.brain = this.makeBrain();
    const { hub } = this.brain;
    cluster.instances.forEach((spec, i) => {
      const door = {
        stepLaw: cluster.stepLaw,
        frontEndMs: cluster.frontEndMs,
        seed: seed * 104_729 + 31 * i,
        tamper: options.tamper,
        cacheSource: options.cacheSource ?? 'shadow',
      };
      this.doors.set(spec.id, new SimDoor(this.clock, hub, spec, door));
    });
    this.oracle = new Oracle(this.clock, [...this.doors.values()], cluster.frontEndMs);
    for (let i = 0; i < options.entries; i++) this.entries.push(this.makeEntry(i));
  }

  async run(): Promise<RunRecord> {
    const { clock, options } = this;
    const late = new Set(
      options.cluster.events.filter((event) => event.kind === 'join').map((event) => event.instance),
    );
    [...this.doors.values()].forEach((door, i) => {
      if (!late.has(i)) door.start();
    });
    for (const entry of this.entries) entry.start();
    this.brain.run();
    for (const event of options.cluster.events) clock.after(SETTLE_MS + event.atS * 1000, () => this.happen(event));
    if (options.policy === 'learned') this.watchTrust();
    await clock.run(SETTLE_MS, () => false);
    this.arrive(0);
    const { requests } = options;
    const endMs = SETTLE_MS + (requests.at(-1)?.arrivalMs ?? 0) + PATIENCE_MS;
    await clock.run(endMs, () => this.outcomes.length === requests.length);
    const spanMs = clock.nowMs() - SETTLE_MS;
    await this.brain.stop();
    for (const entry of this.entries) entry.context.watchdog.close();
    return {
      outcomes: this.outcomes,
      instances: this.instances(spanMs),
      firstTrusted: this.firstTrusted,
      spanMs,
      events: clock.events,
    };
  }

  private makeBrain(): BrainCore<SimHub> {
    const { options, clock } = this;
    const defaults = defaultConfig('token-of-a-simulation').brain;
    // Nothing is trained for a policy that reads no predictions.
    const learn =
      options.policy === 'learned' ? defaults.learn : { ...defaults.learn, minNewSamples: Number.MAX_SAFE_INTEGER };
    const config = { ...defaults, learn, policy: 'learned' as const, objective: options.objective, ...options.brain };
    const env = this.env(3);
    return new BrainCore(config, env, {
      counters: newCounters(),
      store: new MemoryStore(),
      trainer: new SimTrainer(clock, trainer),
      hub: (_welcome, handlers) =>
        new SimHub(clock, options.cluster.network.brainMs, tamperedHandlers(options.tamper, handlers, clock)),
    });
  }

  private makeEntry(i: number): SimEntry {
    const { policy, objective, sloTtftMs, sloTpotMs, cluster } = this.options;
    const entry = new SimEntry(`entry-${i}`, this.env(1000 + i), this.clock, this.brain.hub, this.doors, {
      policy: policy === 'oracle' ? 'least-request' : policy,
      objective,
      sloTtftMs,
      sloTpotMs,
      hopMs: cluster.network.hopMs,
    });
    this.shareCentral(entry);
    let decisions = 0;
    entry.onDecision = (request, decision) => {
      if (policy === 'oracle') return this.oracle.overrule(entry, request, decision);
      decisions += 1;
      return decisions % REGRET_EVERY === 0 ? this.oracle.regretMs(request, decision.view.id) : NaN;
    };
    return entry;
  }

  /** Policies whose originals learn at one gateway do so here, though the traffic comes in at several entries. */
  private shareCentral(entry: SimEntry): void {
    const { policy } = this.options;
    if (policy === 'oracle') return;
    const kind: PolicyKind = policies[policy];
    if (!kind.central) return;
    this.central ??= kind.create(this.env(77));
    entry.context.tables.usePolicy(policy, this.central);
  }

  private env(offset: number): Env {
    return { clock: this.clock, rng: seededRng(this.options.seed * 15_485_863 + offset), log: silentLog };
  }

  /** Sets the next arrival when one has come, so that the clock's heap stays small. */
  private arrive(index: number): void {
    const request = this.options.requests[index];
    if (!request) return;
    this.clock.after(SETTLE_MS + request.arrivalMs - this.clock.nowMs(), () => {
      const entry = this.entries[Math.floor(this.traffic() * this.entries.length)] as SimEntry;
      entry.submit(request, (outcome) => this.outcomes.push(outcome));
      this.arrive(index + 1);
    });
  }

  private happen(event: ClusterEvent): void {
    const door = [...this.doors.values()][event.instance] as SimDoor;
    if (event.kind === 'throttle') door.engine.slowFactor = event.factor;
    else if (event.kind === 'clear-cache') door.engine.resetPrefixCache();
    else if (event.kind === 'join') door.start();
    else if (event.kind === 'swap') door.swap(event.gpu);
    else {
      door.die();
      const death = (this.deaths.get(door) ?? 0) + 1;
      this.deaths.set(door, death);
      // Unless it was killed again meanwhile.
      if (event.restart !== undefined)
        this.clock.after(event.restart * 1000, () => this.deaths.get(door) === death && door.restart());
    }
  }

  private watchTrust(): void {
    const timer = this.clock.every(100, () => {
      if (!this.entries.some((entry) => entry.context.tables.table?.trust.verdict === 'trusted')) return;
      this.firstTrusted = { atMs: this.clock.nowMs() - SETTLE_MS, requests: this.outcomes.length };
      timer.cancel();
    });
  }

  private instances(spanMs: number): RunRecord['instances'] {
    const requests = new Map<string, number>();
    for (const { instance } of this.outcomes) requests.set(instance, (requests.get(instance) ?? 0) + 1);
    return [...this.doors.values()].map((door) => ({
      id: door.spec.id,
      gpu: door.spec.gpu.key,
      requests: requests.get(door.spec.id) ?? 0,
      busyRatio: door.busyMs / Math.max(1, spanMs),
      preemptions: door.preemptions,
    }));
  }
}
