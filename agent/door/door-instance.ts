import type { InstanceConfig } from '../../shared/config/index.ts';
import type { Env } from '../../shared/env.ts';
import { errorMessage } from '../../shared/errors.ts';
import { FaultLog } from '../../shared/fault-log.ts';
import type { CacheFigures, GpuGauges, Health, InstanceReport } from '../../shared/instance.ts';
import { GENERIC_LAW, type LawState } from '../../shared/predictor/step-law.ts';
import { boundNames, mendFigures, NAME_BOUNDS } from '../../shared/report.ts';
import type { RoutingTable } from '../../shared/table.ts';
import type { EngineFigures, EngineGauges, GpuSample, ServedModel, VllmMetrics } from './collectors/index.ts';
import type { DoorSources, HealthChecks } from './door-sources.ts';
import { makeKvEventSubscriber } from './kv-events/make-subscriber.ts';
import type { KvEventSubscriber } from './kv-events/subscriber.ts';
import type { LedgerPrompt } from '../request/prompt.ts';
import { LawFit } from './law/law-fit.ts';
import { Ledger } from './ledger.ts';
import { EngineLife } from './life/engine-life.ts';
import type { WatchLimits } from './life/engine-watch.ts';
import type { OpenAttempts } from './open-attempts.ts';
import { OutsideTraffic } from './outside-traffic.ts';
import { CacheView } from './cache/cache-view.ts';
import { GuardedCache } from './guarded-cache.ts';
import { TokenProbe } from './cache/token-probe.ts';
import { Upstream } from '../wire/upstream.ts';

/** Capacity assumed until the engine or the config tells it. */
const UNKNOWN_KV_TOKENS = 100_000;
const DEFAULT_BLOCK_TOKENS = 16;
/** The estimate of a prompt's tokens by its text may be off by this much. */
const LENGTH_TOLERANCE = 2;
const NO_HASHES = new Float64Array(0);
const NO_TEXT = Buffer.alloc(0);
/** Age of a report of an engine that is quiet: above any at which a state counts as fresh. */
const QUIET_AGE_MS = 20_000;
/** Reports travel in headers too. */
const MAX_PROBLEM_CHARS = 256;
/** Of a long model name, so much is part of the instance's kind. */
const MAX_KIND_MODEL_CHARS = 160;

export interface DoorInstanceOptions {
  config: InstanceConfig;
  agentId: string;
  /** boot epoch of this agent */
  epoch: number;
  doorUrl: string;
  connectTimeoutMs: number;
  open: OpenAttempts;
  limits: WatchLimits;
  collectors: DoorSources;
  env: Env;
  /**
   * `assumed`: the cache view keeps the size that it starts with; otherwise it takes the one that the engine reports
   */
  cacheSize?: 'assumed' | 'reported';
}

/**
 * One local engine as its door keeps it: ledger, cache view, law, gauges and health. The only source of truth about it.
 */
export class DoorInstance {
  readonly id: string;
  readonly upstream: Upstream;
  readonly ledger: Ledger;
  readonly cache: GuardedCache;
  readonly config: InstanceConfig;
  /** undefined: not configured. Started and stopped with the agent. */
  readonly kvEvents: KvEventSubscriber | undefined;
  readonly outside: OutsideTraffic;
  /** deliveries under way at all engines of the agent */
  readonly open: OpenAttempts;
  readonly life: EngineLife;
  /** what the engine tells that cannot be reported */
  readonly faults: FaultLog;
  incarnation: number;
  /**
   * the engine ends every stream with its usage, asked or not (`--enable-force-include-usage`); undefined: not known
   * yet
   */
  usageForced: boolean | undefined;
  /** counts the block deltas of this incarnation */
  blockSeq = 0;
  private readonly options: DoorInstanceOptions;
  private readonly fit: LawFit;
  private startKey: string | undefined;
  /** clock ms of the newest reading with that key: what was sent before it went to that incarnation */
  private keyReadMs = -Infinity;
  private reportSeq = 0;
  private named: { served: readonly ServedModel[]; models: string[] } = { served: [], models: [] };
  private kvTokens: number;
  private blockTokens = DEFAULT_BLOCK_TOKENS;
  private lastHealth: Health = 'starting';
  private wasUp = false;
  private priorLaw: LawState = GENERIC_LAW;

  constructor(options: DoorInstanceOptions) {
    const { config, env } = options;
    this.options = options;
    this.config = config;
    this.id = config.id;
    this.faults = new FaultLog(env.log);
    // Above those of earlier boots even if the wall clock has gone back: entries ignore what looks older.
    this.incarnation = options.epoch;
    this.outside = new OutsideTraffic(config.id, env.log);
    this.open = options.open;
    this.upstream = new Upstream(config.url, options.connectTimeoutMs, env.clock);
    this.kvTokens = config.kvTokens ?? UNKNOWN_KV_TOKENS;
    const view = new CacheView(
      env.clock,
      this.kvTokens,
      this.blockTokens,
      new TokenProbe(this.upstream, env.clock, config.apiKey),
      (problem) => env.log.warn({ instance: config.id }, problem),
    );
    this.cache = new GuardedCache(view, env, config.id, () => this.kvEvents?.startAnew());
    this.kvEvents = makeKvEventSubscriber(config, this.cache.events, env);
    this.fit = new LawFit(GENERIC_LAW);
    this.ledger = new Ledger(env.clock, this.cache, this.fit, this.limits());
    this.ledger.onFault = (error) =>
      this.faults.note(this.id, { instance: this.id, problem: `law: ${errorMessage(error)}` });
    this.life = this.makeLife();
  }

  nowMs(): number {
    return this.options.env.clock.nowMs();
  }

  /**
   * As the checks say, and `down` while the engine is in doubt: then it gets no new requests. One that is merely quiet
   * has an old report instead, so that it gets them where nobody else can.
   */
  get health(): Health {
    const { doubt } = this.life;
    return this.checkedHealth === 'up' && doubt !== undefined && doubt !== 'quiet' ? 'down' : this.checkedHealth;
  }

  /**
   * The prompt as the ledger is to account for it. One that is far longer than the engine can hold is refused by the
   * engine, so nothing is worked out of its text.
   */
  accounted(prompt: LedgerPrompt): LedgerPrompt {
    const { kvTokens } = this.limits();
    const room = Math.min(this.maxModelLen || Infinity, kvTokens);
    return prompt.promptTokens <= LENGTH_TOLERANCE * room ? prompt : { ...prompt, hashes: NO_HASHES, text: NO_TEXT };
  }

  private get maxModelLen(): number {
    return this.options.collectors.instances.get(this.id)?.health.state.models[0]?.maxModelLen ?? 0;
  }

  private get checkedHealth(): Health {
    return this.options.collectors.instances.get(this.id)?.health.state.health ?? 'starting';
  }

  /** Every name that the engine answers to; the same array until the engine tells others. */
  get models(): string[] {
    const served = this.options.collectors.instances.get(this.id)?.health.state.models ?? [];
    if (served === this.named.served) return this.named.models;
    const models = served.map((model) => model.id);
    const left = models.length - boundNames(models, NAME_BOUNDS).length;
    if (left > 0)
      this.faults.note(this.id, {
        instance: this.id,
        problem: `models: ${left} of ${models.length} names are too long or too many to be reported, so only this agent serves them`,
      });
    this.named = { served, models };
    return models;
  }

  /** A request failed on the way to the engine: look at its health now instead of at the next period. */
  noteFailure(): void {
    this.options.collectors.instances.get(this.id)?.health.noteFailure();
  }

  /** Takes what the collectors have read; called each telemetry tick. Detects restarts and learns the cache's size. */
  refresh(): void {
    const { env } = this.options;
    const collectors = this.options.collectors.instances.get(this.id);
    const health = this.checkedHealth;
    if (health === 'up' && this.lastHealth !== 'up')
      void collectors?.metrics
        .readNow()
        .then(() => this.recovered())
        .catch((error: unknown) =>
          env.log.error(
            { instance: this.id, err: error },
            'what a restart of the engine means could not be worked out',
          ),
        );
    this.lastHealth = health;
    this.readMetrics();
    this.followEvents();
    const gauges = this.gauges();
    // An engine in doubt is probed, and its gauges may stand still.
    if (gauges && this.life.doubt === undefined)
      this.outside.note(this.ledger.inFlight, gauges.value.running + gauges.value.waiting, gauges.atMs);
  }

  /** Events are followed once the engine has told the size of its blocks: before, they cannot be judged. */
  private followEvents(): void {
    if (!this.kvEvents) return;
    if (this.options.collectors.instances.get(this.id)?.metrics.latest()) this.kvEvents.start();
    this.cache.setEventsLive(this.kvEvents.isConnected);
  }

  /** A better starting point for the law: that of its kind, else the fleet's. */
  setPriors(laws: RoutingTable['laws']): void {
    const prior = laws.kinds[this.kind()] ?? laws.fleet;
    if (prior === this.priorLaw) return;
    this.priorLaw = prior;
    this.fit.setPrior(prior);
  }

  /** The engine's prefix cache was emptied on purpose. */
  resetPrefixCache(): void {
    this.cache.resetCached();
  }

  report(draining: boolean): InstanceReport {
    const { collectors, agentId, doorUrl, env } = this.options;
    const nowMs = env.clock.nowMs();
    const metrics = this.gauges();
    const host = collectors.host.latest()?.value;
    this.reportSeq += 1;
    const report: InstanceReport = {
      instance: this.id,
      agent: agentId,
      doorUrl,
      incarnation: this.incarnation,
      seq: this.reportSeq,
      ageMs: this.life.doubt === 'quiet' ? QUIET_AGE_MS : 0,
      // Asleep, an engine answers health checks, shows no load, and hangs on requests.
      health: this.isAsleep() ? 'down' : this.health,
      draining,
      models: this.models,
      kind: this.kind(),
      limits: { ...this.limits(), maxModelLen: this.maxModelLen },
      ledger: this.ledger.totals(),
      law: this.fit.state(),
      cache: this.cacheFigures(),
      engine: metrics
        ? {
            running: metrics.value.running,
            waiting: metrics.value.waiting,
            kvUsageRatio: metrics.value.kvUsageRatio ?? 0,
            ageMs: nowMs - metrics.atMs,
          }
        : null,
      gpu: this.gpu(nowMs),
      host:
        host?.cpuRatio === undefined || host.memUsedRatio === undefined
          ? null
          : { cpuRatio: host.cpuRatio, memUsedRatio: host.memUsedRatio },
      seen: this.ledger.seenBy(),
    };
    // Whatever was read or worked out above: a report that others refuse would hide the instance from them.
    return mendFigures(report, (fault) => this.faults.note(this.id, fault));
  }

  private cacheFigures(): CacheFigures {
    const figures = this.cache.figures();
    const problem =
      figures.source === 'events' || figures.problem !== '' ? figures.problem : (this.kvEvents?.status().error ?? '');
    return { ...figures, problem: problem.slice(0, MAX_PROBLEM_CHARS) };
  }

  private makeLife(): EngineLife {
    const { collectors, config, env, limits } = this.options;
    const checks = (): HealthChecks | undefined => collectors.instances.get(this.id)?.health;
    return new EngineLife({
      instance: this.id,
      env,
      limits,
      open: this.open,
      upstream: this.upstream,
      headers: config.apiKey ? { authorization: `Bearer ${config.apiKey}` } : {},
      sources: {
        healthHeardMs: () => checks()?.heardMs ?? -Infinity,
        goneMs: () => checks()?.goneMs,
        gauges: () => this.gauges(),
        longestStepMs: () => this.ledger.longestStepMs(),
        model: () => this.models[0],
      },
    });
  }

  /** Model, quantisation, GPU × tensor parallelism and engine version in one string. */
  private kind(): string {
    const { kind } = this.config;
    const health = this.options.collectors.instances.get(this.id)?.health.state;
    const model = (health?.models[0]?.id ?? '?').slice(0, MAX_KIND_MODEL_CHARS);
    const gpu = kind.gpu ?? this.gpuName() ?? '?';
    return `${model}|${kind.quantisation ?? '-'}|${gpu}x${kind.tensorParallel ?? 1}|${health?.version ?? '?'}`.slice(
      0,
      256,
    );
  }

  private limits() {
    const { maxNumSeqs, maxBatchedTokens } = this.config;
    return { kvTokens: this.kvTokens, blockTokens: this.blockTokens, maxNumSeqs, maxBatchedTokens };
  }

  /** Back from down. Several API servers hide when the engine started; then an outage counts as a restart. */
  private recovered(): void {
    const before = this.incarnation;
    this.readMetrics();
    const metrics = this.options.collectors.instances.get(this.id)?.metrics.latest()?.value;
    if (this.wasUp && this.incarnation === before && metrics?.processStartS === undefined) this.restarted();
    this.wasUp = true;
  }

  private readMetrics(): void {
    const reading = this.options.collectors.instances.get(this.id)?.metrics.latest();
    if (!reading) return;
    const metrics = reading.value;
    if (this.startKey !== undefined && metrics.engineStartKey !== this.startKey) this.restarted();
    this.startKey = metrics.engineStartKey;
    this.keyReadMs = reading.beganMs;
    const gauges = this.engineOf(metrics);
    const kvTokens = gauges.kvTokens ?? this.kvTokens;
    const blockTokens = gauges.blockSize ?? this.blockTokens;
    if (gauges.prefixCaching !== undefined) this.cache.setCaching(gauges.prefixCaching);
    const isKnown = gauges.kvTokens !== undefined || this.config.kvTokens !== undefined;
    if (isKnown && this.options.cacheSize !== 'assumed') this.cache.setSize(kvTokens, blockTokens);
    if (kvTokens === this.kvTokens && blockTokens === this.blockTokens) return;
    this.kvTokens = kvTokens;
    this.blockTokens = blockTokens;
    this.ledger.setLimits(this.limits());
  }

  private gauges(): { value: EngineGauges; atMs: number; beganMs: number } | undefined {
    const reading = this.options.collectors.instances.get(this.id)?.metrics.latest();
    if (!reading) return undefined;
    const figures = this.engineOf(reading.value);
    const { running, waiting } = figures;
    return running === undefined || waiting === undefined
      ? undefined
      : { ...reading, value: { ...figures, running, waiting } };
  }

  private isAsleep(): boolean {
    const reading = this.options.collectors.instances.get(this.id)?.metrics.latest();
    return reading !== undefined && this.engineOf(reading.value).sleeping;
  }

  /**
   * Of a page that speaks of several ranks, the figures of this one; those of the page where it does not name the rank.
   */
  private engineOf(metrics: VllmMetrics): EngineFigures {
    const { dataParallelRank: rank } = this.config;
    return (rank === undefined ? undefined : metrics.engines.get(String(rank))) ?? metrics;
  }

  private restarted(): void {
    const { env } = this.options;
    env.log.warn({ instance: this.id }, 'the engine has restarted: its cache view and step-time law start anew');
    this.incarnation = Math.max(this.incarnation + 1, env.clock.wallMs());
    this.blockSeq = 0;
    this.usageForced = undefined;
    this.life.restarted(this.keyReadMs);
    this.ledger.reset();
    this.fit.reset(this.priorLaw);
  }

  private gpuName(): string | undefined {
    const inventory = this.options.collectors.gpuInventory.latest()?.value ?? [];
    return this.mine(inventory)[0]?.name;
  }

  /** The GPUs of this instance: by config, else all of the host when it is the only instance there. */
  private mine<G extends { index: number }>(gpus: readonly G[]): readonly G[] {
    const { gpus: chosen } = this.config;
    if (chosen) return gpus.filter((gpu) => chosen.includes(gpu.index));
    return this.options.collectors.instances.size === 1 ? gpus : [];
  }

  private gpu(nowMs: number): GpuGauges | null {
    const samples = this.mine(this.options.collectors.gpu.latest()?.value ?? []);
    const atMs = this.options.collectors.gpu.latest()?.atMs;
    if (samples.length === 0 || atMs === undefined) return null;
    const mean = (pick: (sample: GpuSample) => number | undefined): number =>
      samples.reduce((sum, sample) => sum + (pick(sample) ?? 0), 0) / samples.length;
    return {
      utilRatio: mean((s) => s.utilRatio),
      memUsedRatio: mean((s) => s.memUsedRatio),
      smClockRatio: mean((s) => s.smClockRatio),
      powerRatio: mean((s) => s.powerRatio),
      temperatureC: mean((s) => s.temperatureC),
      ageMs: nowMs - atMs,
    };
  }
}
