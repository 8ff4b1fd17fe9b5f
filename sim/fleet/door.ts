import type { GpuSample, VllmMetrics } from '../../agent/door/collectors/index.ts';
import { type DeliveryId, OpenAttempts } from '../../agent/door/open-attempts.ts';
import { DoorInstance } from '../../agent/door/door-instance.ts';
import type { DoorSources } from '../../agent/door/door-sources.ts';
import { Instances } from '../../agent/entry/instances.ts';
import type { LedgerPrompt } from '../../agent/request/prompt.ts';
import { Telemetry } from '../../agent/link/telemetry.ts';
import { defaultConfig } from '../../shared/config/index.ts';
import { seededRng, silentLog } from '../../shared/env.ts';
import type { InstanceReport } from '../../shared/instance.ts';
import type { ReportUpdate } from '../../shared/report.ts';
import { Engine } from '../engine/engine.ts';
import type { GpuProfile } from '../engine/gpus.ts';
import type { EngineRequest } from '../engine/request.ts';
import type { StepBatch } from '../engine/step.ts';
import { makeStepTime, type StepLawName } from '../engine/step-laws.ts';
import type { StepTimeModel } from '../engine/step-time.ts';
import { agentEvents, type CacheSourceName } from './cache-source.ts';
import type { SimClock } from './clock.ts';
import type { ClusterInstance } from './cluster.ts';
import type { SimHub, SimLink } from './network.ts';
import { ENGINE_BLOCK_TOKENS, SIM_MODEL, type SimRequest } from './plan.ts';
import { type Tamper, tamperedReport } from './tamper.ts';

const METRICS_PERIOD_MS = 1000;
const HEALTH_PERIOD_MS = 250;
const GPU_PERIOD_MS = 500;
const EPOCH = 1;

/** What an entry hears of a delivery, at the door's time. */
export interface DeliveryHandler {
  /** `report`: the door's own, as it travels in the answer's header */
  onFirstToken(report: ReportUpdate): void;
  /** `doorHitTokens`: what the door's view told at dispatch that would be found cached */
  onEnd(usage: { promptTokens: number; outputTokens: number; cachedTokens: number }, doorHitTokens: number): void;
  onError(): void;
  /** the engine answers 400: it can never hold the request */
  onRefused(): void;
}

export interface DoorOptions {
  stepLaw: StepLawName;
  frontEndMs: number;
  seed: number;
  tamper: Tamper | undefined;
  cacheSource: CacheSourceName;
}

/**
 * An agent on virtual time as the door of one simulated engine: the agent's own ledger, cache view, step clock and
 * telemetry.
 */
export class SimDoor implements SimLink {
  readonly agent: string;
  readonly instance: DoorInstance;
  /** as it is now: a swap puts another GPU in */
  spec: ClusterInstance;
  engine: Engine;
  private readonly clock: SimClock;
  private readonly hub: SimHub;
  private readonly stepLaw: StepLawName;
  private readonly frontEndMs: number;
  private readonly seed: number;
  private readonly readings: SimReadings;
  private trueStepTime: StepTimeModel;
  private readonly tamper: Tamper | undefined;
  private readonly cacheSource: CacheSourceName;
  private readonly instances: Instances;
  private readonly telemetryMinMs: number;
  private telemetry: Telemetry | undefined;
  private starts = 0;
  /** what the engines did that are gone */
  private readonly before = { busyMs: 0, preemptions: 0 };

  constructor(clock: SimClock, hub: SimHub, spec: ClusterInstance, options: DoorOptions) {
    this.clock = clock;
    this.hub = hub;
    this.spec = spec;
    this.agent = `door-${spec.id}`;
    this.stepLaw = options.stepLaw;
    this.frontEndMs = options.frontEndMs;
    this.seed = options.seed;
    this.tamper = options.tamper;
    this.cacheSource = options.cacheSource;
    this.trueStepTime = this.stepTimeWithoutNoise();
    this.engine = this.startEngine();
    this.readings = new SimReadings(clock, this);
    const { maxNumSeqs, maxBatchedTokens } = spec;
    const config = { ...defaultConfig('token-of-a-simulation').agent, id: this.agent };
    this.instance = new DoorInstance({
      config: { id: spec.id, url: 'http://127.0.0.1:9', kind: {}, maxNumSeqs, maxBatchedTokens },
      agentId: this.agent,
      epoch: EPOCH,
      doorUrl: `http://${this.agent}:8080`,
      connectTimeoutMs: 1000,
      open: new OpenAttempts(),
      limits: config,
      collectors: this.readings.sources(spec.id),
      env: { clock, rng: seededRng(options.seed + 1), log: silentLog },
      // Entries and the ledger still learn the size: only the view goes without.
      cacheSize: options.cacheSource === 'estimate' ? 'assumed' : 'reported',
    });
    this.instances = new Instances(clock, config, this.agent, EPOCH, [this.instance]);
    this.telemetryMinMs = config.telemetryMinMs;
  }

  get joined(): boolean {
    return this.telemetry !== undefined;
  }

  /** The true time of a step without its noise, ms. */
  stepTimeMs(batch: StepBatch): number {
    return this.trueStepTime(batch) * this.engine.slowFactor;
  }

  /** Joins the fleet: telemetry flows from now on. */
  start(): void {
    this.readings.start();
    this.followEvents();
    this.hub.join(this, EPOCH);
    const sink = {
      sendReports: (reports: InstanceReport[]) => this.hub.send(this.agent, { t: 'telemetry', seq: 0, reports }),
      sendBlocks: (message: Parameters<SimHub['send']>[1]) => this.hub.send(this.agent, message),
    };
    this.telemetry = new Telemetry([this.instance], this.instances, this.clock, this.telemetryMinMs, sink, () => false);
  }

  onMessage(message: Parameters<SimLink['onMessage']>[0]): void {
    if (message.t === 'resend-blocks') this.telemetry?.resendBlocks(message.instance);
    else if (message.t === 'table') this.instance.setPriors(this.hub.open(message.table).laws);
  }

  /** A request of an entry arrives. */
  deliver(request: SimRequest, prompt: LedgerPrompt, id: DeliveryId, handler: DeliveryHandler): void {
    const { engine, instance } = this;
    if (engine.isDead) {
      instance.noteFailure();
      handler.onError();
      return;
    }
    const { ledger } = instance;
    ledger.seen.note(id.entry, id.epoch, id.seq);
    // As vLLM does: a prompt must leave room for one token of its answer.
    if (request.prompt.length >= this.spec.kvTokens) {
      handler.onRefused();
      return;
    }
    const entry = ledger.open(prompt);
    const spec = {
      id: '',
      prompt: request.prompt,
      maxOutput: request.outputTokens,
      promptHashes: request.blockHashes,
      outputSeed: request.index,
    };
    engine.submit(spec, {
      onToken: (one) => {
        ledger.tokens(entry, 1);
        if (one.outputCount === 1) this.tellFirstToken(handler);
      },
      onFinish: (one) => {
        const usage = {
          promptTokens: request.prompt.length,
          outputTokens: one.outputCount,
          cachedTokens: Math.max(0, one.hitTokens),
        };
        ledger.close(entry, usage);
        handler.onEnd(usage, entry.hitTokens);
      },
      onDeath: () => {
        instance.noteFailure();
        ledger.close(entry, undefined);
        handler.onError();
      },
    });
  }

  /** The engine process dies. */
  die(): void {
    this.engine.die();
  }

  /** A new engine process takes the place of the dead one: empty cache, no load. */
  restart(): void {
    const { slowFactor, scheduler } = this.engine;
    this.before.busyMs += this.engine.busyMs(this.clock.nowMs());
    this.before.preemptions += scheduler.preemptionCount;
    this.engine = this.startEngine();
    this.followEvents();
    // It is the GPU that is throttled, not the process.
    this.engine.slowFactor = slowFactor;
  }

  /** Milliseconds spent in steps, by all engines that were here. */
  get busyMs(): number {
    return this.before.busyMs + this.engine.busyMs(this.clock.nowMs());
  }

  get preemptions(): number {
    return this.before.preemptions + this.engine.scheduler.preemptionCount;
  }

  /** The engine process dies, and one on another GPU takes its place. */
  swap(gpu: GpuProfile): void {
    this.die();
    this.spec = { ...this.spec, gpu, kvTokens: gpu.kvTokens };
    this.trueStepTime = this.stepTimeWithoutNoise();
    this.restart();
    this.engine.slowFactor = 1;
  }

  get startKey(): string {
    return `${this.starts}`;
  }

  /** A new engine's events are heard from its first on. */
  private followEvents(): void {
    if (this.cacheSource === 'exact') this.instance.cache.events.begin(true);
  }

  private tellFirstToken(handler: DeliveryHandler): void {
    const report = this.instance.report(false);
    // The token comes even where the header beside it is refused; a report of sequence 0 is older than any.
    handler.onFirstToken(tamperedReport(this.tamper, report, this.clock.nowMs()) ?? { ...report, seq: 0 });
  }

  /** Of a rough law the part without noise, with the same traits drawn. */
  private stepTimeWithoutNoise(): StepTimeModel {
    return makeStepTime(
      this.stepLaw === 'linear' ? 'linear' : 'roofline',
      this.spec.gpu,
      seededRng(this.seed),
      this.clock,
    );
  }

  private startEngine(): Engine {
    const { gpu, kvTokens, maxNumSeqs, maxBatchedTokens, asyncScheduling } = this.spec;
    this.starts += 1;
    return new Engine({
      clock: this.clock,
      stepTime: makeStepTime(this.stepLaw, gpu, seededRng(this.seed), this.clock),
      frontEndMs: this.frontEndMs,
      // One physical block more than requests can use: the null block.
      blockCount: Math.floor(kvTokens / ENGINE_BLOCK_TOKENS) + 1,
      blockSize: ENGINE_BLOCK_TOKENS,
      maxNumSeqs,
      maxBatchedTokens,
      asyncScheduling,
      maxModelLen: kvTokens,
      sample: sampleToken,
      onKvEvents:
        this.cacheSource === 'exact' ? (events) => this.instance.cache.events.apply(agentEvents(events)) : undefined,
    });
  }
}

/** Output tokens matter only where a later prompt repeats them; in a trace of block ids none can be told to. */
function sampleToken(request: EngineRequest): number {
  return (Math.imul(request.outputSeed + 1, 0x9e3779b1) ^ request.outputCount) & 0x7fffffff;
}

/** What collectors would read of a simulated engine and its GPU, at their periods. */
class SimReadings {
  private readonly clock: SimClock;
  private readonly door: SimDoor;
  private metrics: { value: VllmMetrics; atMs: number; beganMs: number } | undefined;
  private gpu: { value: readonly GpuSample[]; atMs: number } | undefined;
  private busyMs = 0;
  private up = true;

  constructor(clock: SimClock, door: SimDoor) {
    this.clock = clock;
    this.door = door;
  }

  start(): void {
    this.readMetrics();
    this.readGpu();
    this.clock.every(METRICS_PERIOD_MS, () => this.readMetrics());
    this.clock.every(GPU_PERIOD_MS, () => this.readGpu());
    this.clock.every(HEALTH_PERIOD_MS, () => this.readHealth());
  }

  sources(id: string): DoorSources {
    const { door } = this;
    const models = () => [{ id: SIM_MODEL, maxModelLen: door.spec.kvTokens, parent: undefined }];
    const isUp = (): boolean => this.up;
    const inventory = () => ({
      value: [
        {
          index: 0,
          uuid: id,
          name: door.spec.gpu.key,
          memTotalMb: undefined,
          driverVersion: undefined,
          processIds: [],
        },
      ],
      atMs: 0,
    });
    return {
      host: { latest: () => undefined },
      gpuInventory: { latest: inventory },
      gpu: { latest: () => this.gpu },
      instances: new Map([
        [
          id,
          {
            metrics: {
              latest: () => this.metrics,
              readNow: () => {
                this.readMetrics();
                return Promise.resolve();
              },
            },
            health: {
              get state() {
                return { health: isUp() ? ('up' as const) : ('down' as const), version: 'simulated', models: models() };
              },
              heardMs: -Infinity,
              goneMs: undefined,
              noteFailure: () => this.readHealth(),
            },
          },
        ],
      ]),
    };
  }

  private readHealth(): void {
    this.up = !this.door.engine.isDead;
  }

  private readMetrics(): void {
    const { engine, spec, startKey } = this.door;
    if (engine.isDead) return;
    const { running, waiting, kvUsageRatio } = engine.gauges;
    const value: VllmMetrics = {
      running,
      waiting,
      kvUsageRatio,
      prefixQueries: 0,
      prefixHits: 0,
      promptTokens: 0,
      generationTokens: 0,
      preemptions: engine.scheduler.preemptionCount,
      sleeping: false,
      numGpuBlocks: spec.kvTokens / ENGINE_BLOCK_TOKENS,
      blockSize: ENGINE_BLOCK_TOKENS,
      kvTokens: spec.kvTokens,
      prefixCaching: undefined,
      processStartS: this.clock.wallMs() / 1000,
      engines: new Map(),
      engineStartKey: startKey,
    };
    const nowMs = this.clock.nowMs();
    this.metrics = { value, atMs: nowMs, beganMs: nowMs };
  }

  private readGpu(): void {
    const { engine, spec } = this.door;
    const nowMs = this.clock.nowMs();
    const busyMs = engine.busyMs(nowMs);
    const utilRatio = Math.max(0, Math.min(1, (busyMs - this.busyMs) / GPU_PERIOD_MS));
    this.busyMs = busyMs;
    const smClockRatio = 1 / Math.max(1, engine.slowFactor);
    // Idle cards draw about a quarter of their limit.
    const powerRatio = 0.25 + 0.7 * utilRatio * smClockRatio;
    const unread = { memUtilRatio: undefined, memTotalMb: undefined, temperatureC: undefined };
    this.gpu = {
      value: [
        {
          index: 0,
          uuid: spec.id,
          name: spec.gpu.key,
          utilRatio,
          memUsedRatio: 0.9,
          smClockRatio,
          powerRatio,
          ...unread,
        },
      ],
      atMs: nowMs,
    };
  }
}
