import { objectives } from '../shared/choice/objectives/index.ts';
import { encode } from '../shared/codec.ts';
import type { BrainConfig } from '../shared/config/index.ts';
import type { Env } from '../shared/env.ts';
import { errorMessage } from '../shared/errors.ts';
import { packNet, tableNet } from '../shared/table.ts';
import { BlockViews } from './block-views.ts';
import type { Counters } from './counters.ts';
import { FanOut } from './fan-out.ts';
import type { BrainHub, HubHandlers, WelcomeSource } from './hub.ts';
import { Ingest } from './ingest.ts';
import { LawPriors } from './law-priors.ts';
import { Learner } from './learn.ts';
import { ModelStats } from './model-stats.ts';
import { Publisher, type TableParts } from './publish.ts';
import { Registry } from './registry.ts';
import { type BackendStatus, brainStatus } from './status.ts';
import type { BrainStore, PolicyChoice } from './store.ts';
import type { Trainer } from './train.ts';

const TIDY_MS = 1_000;
const LAWS_MS = 5_000;
const PRUNE_MS = 60_000;

/** What a brain stands on: live, an LMDB store and WebSockets; in simulation, memory and a simulated network. */
export interface BrainParts<H extends BrainHub> {
  counters: Counters;
  store: BrainStore;
  trainer: Trainer;
  hub(welcome: WelcomeSource, handlers: HubHandlers): H;
}

/** The parts of a brain, wired; everything but the HTTP server. */
export class BrainCore<H extends BrainHub> {
  readonly counters: Counters;
  readonly store: BrainStore;
  readonly hub: H;
  readonly publisher: Publisher;
  choice: PolicyChoice & { source: 'config' | 'operator' };
  private readonly config: BrainConfig;
  private readonly env: Env;
  private readonly trainer: Trainer;
  private readonly registry: Registry;
  private readonly fanOut: FanOut;
  private readonly views: BlockViews;
  private readonly ingest: Ingest;
  readonly learner: Learner;
  private readonly stats = new ModelStats();
  private readonly laws: LawPriors;
  private readonly brainEpoch: number;
  private readonly startedWallMs: number;
  private readonly timers: { cancel(): void }[] = [];
  private backend: BackendStatus = { name: null, gpu: false, tried: [], memory: '', state: 'starting' };

  constructor(config: BrainConfig, env: Env, parts: BrainParts<H>) {
    const { clock, log } = env;
    const { counters, store, trainer } = parts;
    this.counters = counters;
    this.config = config;
    this.env = env;
    this.trainer = trainer;
    this.startedWallMs = clock.wallMs();
    this.store = store;
    this.brainEpoch = store.nextEpoch(clock.wallMs());
    this.choice = this.firstChoice();
    const before = store.lastTable()?.table ?? null;
    this.laws = new LawPriors(before?.laws);
    const start = { champion: before && tableNet(before), trusted: before?.trust.verdict === 'trusted' };
    this.learner = new Learner({ ...config.learn, trust: config.trust }, env, trainer, counters, start, () =>
      this.publisher.publish('new net'),
    );
    this.publisher = new Publisher({
      clock,
      log,
      store,
      counters,
      parts: () => this.parts(),
      broadcast: (message, owe) => this.hub.broadcast(message, owe),
    });
    this.registry = new Registry(clock, log, counters, {
      changed: (instance) => this.fanOut.instanceChanged(instance),
      gone: (instance) => {
        this.views.forget(instance);
        this.fanOut.instanceGone(instance);
      },
      rosterChanged: () => this.publisher.rosterChanged(),
    });
    this.fanOut = new FanOut(clock, {
      report: (instance) => this.registry.report(instance),
      reports: () => this.registry.reports(),
      broadcast: (message, owe, earlier) => this.hub.broadcast(message, owe, earlier),
    });
    this.views = new BlockViews(clock, counters, {
      peers: () => this.hub.peers(),
      askDoor: (instance, message) => this.hub.peer(this.registry.holder(instance) ?? '')?.send(encode(message)),
    });
    this.ingest = new Ingest(env, store, counters, (samples) => {
      for (const sample of samples) {
        this.stats.note(sample);
        this.learner.observe(sample);
      }
      this.publisher.trustIs(this.learner.verdict());
    });
    this.hub = parts.hub(this.welcome(), this.handlers());
    this.restoreSamples();
  }

  /** Starts the timers and the training backend. */
  run(): void {
    const { clock } = this.env;
    this.timers.push(
      clock.every(TIDY_MS, () => {
        this.registry.expire();
        this.publisher.trustIs(this.learner.verdict());
      }),
      clock.every(LAWS_MS, () => {
        this.laws.update(this.registry.reports());
        this.publisher.lawsAre(this.laws.current());
      }),
      clock.every(PRUNE_MS, () => void this.store.pruneSamples(this.env.clock.wallMs() - this.config.learn.maxAgeMs)),
      clock.every(this.config.learn.roundMs, () => void this.learner.turn()),
    );
    void this.startBackend();
  }

  async stop(): Promise<void> {
    for (const timer of this.timers) timer.cancel();
    this.learner.close();
    this.publisher.close();
    this.fanOut.close();
    await this.hub.close();
    await this.trainer.close();
  }

  status() {
    const { brainEpoch, startedWallMs, hub, registry, views, learner, publisher, counters, store } = this;
    return brainStatus({
      brainEpoch,
      startedWallMs,
      hub,
      registry,
      views,
      learner,
      publisher,
      counters,
      store,
      backend: () => this.backend,
      policy: () => this.choice,
    });
  }

  choosePolicy(choice: PolicyChoice): void {
    this.store.savePolicy(choice);
    this.choice = { ...choice, source: 'operator' };
    this.env.log.info(choice, 'the operator chose a policy');
    this.publisher.publish('policy');
  }

  private welcome(): WelcomeSource {
    return { brainEpoch: this.brainEpoch, salt: this.store.salt(), table: () => this.publisher.current() };
  }

  private handlers(): HubHandlers {
    return {
      joined: (peer) => {
        for (const instance of this.registry.fromEarlierBoot(peer.agent, peer.epoch)) this.views.forget(instance);
        this.fanOut.sendAll(peer);
        this.views.oweAll(peer);
        this.payBlocks(peer);
      },
      message: (peer, message, frame) => {
        if (message.t === 'telemetry') {
          this.registry.update(peer.agent, peer.epoch, message.reports);
          for (const { instance, incarnation } of message.reports) {
            if (this.registry.holder(instance) === peer.agent) this.views.noteReport(instance, incarnation);
          }
        } else if (message.t === 'blocks') {
          if (this.registry.holder(message.instance) === peer.agent) this.views.apply(peer.agent, message, frame);
          else if (!this.registry.mayHold(message.instance, peer.agent))
            this.registry.refuse(message.instance, peer.agent);
        } else {
          this.fanOut.sendAll(peer);
          for (const instance of message.blocks) peer.owed.blocks.add(instance);
          this.payBlocks(peer);
        }
      },
      samples: (peer, batch) => void this.ingest.accept(peer, batch),
      caughtUp: (peer) => {
        if (peer.owed.table) this.publisher.sendTo(peer);
        if (peer.owed.state) this.fanOut.sendAll(peer);
        this.payBlocks(peer);
      },
    };
  }

  private payBlocks(peer: Parameters<BlockViews['payOwed']>[0]): void {
    this.views.payOwed(peer, (instance) => this.registry.holder(instance) === peer.agent);
  }

  private parts(): TableParts {
    const net = this.learner.net();
    const { policy, objective } = this.choice;
    return {
      roster: this.registry.roster(),
      policy,
      objective,
      weights: objectives[objective].weights,
      exploration: this.config.exploration,
      net: net && packNet(net),
      p90Factor: this.learner.p90Factor(),
      laws: this.laws.current(),
      ...this.stats.figures(),
      trust: this.learner.verdict(),
    };
  }

  private firstChoice(): BrainCore<H>['choice'] {
    const stored = this.store.policy();
    if (stored) return { ...stored, source: 'operator' };
    return { policy: this.config.policy, objective: this.config.objective, source: 'config' };
  }

  private restoreSamples(): void {
    for (const { sample, arrivedWallMs } of this.store.samplesSince(
      this.env.clock.wallMs() - this.config.learn.maxAgeMs,
    )) {
      this.stats.note(sample);
      this.learner.restore(sample, arrivedWallMs);
    }
  }

  private async startBackend(): Promise<void> {
    try {
      const info = await this.trainer.start();
      this.backend = info;
      const others = info.tried.map(({ name, error }) => `${name} not used: ${error}`);
      this.env.log.info(
        { backend: info },
        `training on ${info.name}${info.gpu ? ' (GPU)' : ' (CPU)'}${others.length > 0 ? `; ${others.join('; ')}` : ''}`,
      );
    } catch (error) {
      this.backend = { name: null, gpu: false, tried: [], memory: '', state: errorMessage(error) };
      this.env.log.error(`no training: ${errorMessage(error)}; predictions stay those of the prior and the last net`);
    }
  }
}
