import type { Subscriber } from 'zeromq';
import type { Env, Timer } from '../../../shared/env.ts';
import { errorMessage, LodestarError } from '../../../shared/errors.ts';
import type { Collector, CollectorStatus } from '../collectors/collector.ts';
import { decodeBatch, type KvEventBatch } from './decode.ts';
import { EVENTS_PER_TURN, KvHistory } from './history.ts';
import type { KvEvent, KvEventSink } from './kv-event.ts';
import { type Problem, ProblemLog, type ProblemKind } from './problem.ts';
import { ReplayClient } from './replay-client.ts';
import type { KvStreamFigures } from './stream-figures.ts';
import { loadZmq, parseLive, subscribeTo, type Zmq } from './sockets.ts';

export interface KvEventSubscriberOptions {
  /** Id of the instance, for logs. */
  instance: string;
  endpoint: string;
  replayEndpoint: string | undefined;
  /** Rank whose events are expected; undefined: that of the first batch. */
  rank: number | undefined;
  sink: KvEventSink;
  env: Pick<Env, 'clock' | 'log'>;
}

/** A lost tail is found within two of these and the 100 ms after which vLLM looks for questions. */
const POLL_MS = 800;
/** After some errors of a peer the library does not connect again; a new socket does. */
const REOPEN_MS = 3000;
/** An endpoint that once was vLLM's is given this long to become it again before it counts as another's. */
const PATIENCE_MS = 60_000;
const MIN_HOLD_MS = 1000;
const MAX_HOLD_MS = 60_000;
const STEADY_MS = 60_000;

/**
 * Follows vLLM's KV events of one engine (vllm/distributed/kv_events.py): a SUB socket for the stream, a DEALER for
 * what was missed. Feeds the sink with one history, in order; what cannot be used is said once, the sink hears `fail`,
 * and the first good batch begins a new history. Never throws.
 */
export class KvEventSubscriber implements Collector<KvStreamFigures> {
  readonly name: string;
  private readonly options: KvEventSubscriberOptions;
  private readonly problems: ProblemLog;
  private readonly history: KvHistory;
  private readonly bad: Partial<Record<ProblemKind, number>> = {};
  private zmq: Zmq | undefined;
  private socket: Subscriber | undefined;
  private replay: ReplayClient | undefined;
  private timer: Timer | undefined;
  private isRunning = false;
  /** The link to the stream is there. */
  isConnected = false;
  private wasConnected = false;
  private isAccepted = false;
  private openedMs = 0;
  private downMs = 0;
  private lastMessageMs: number | undefined;
  private rank: number | undefined;
  /** What is wrong with the last payload that could not be read. */
  private unread: Problem | undefined;
  /** Set while the stream cannot be used. */
  private failure: Problem | undefined;
  private replayProblem: Problem | undefined;
  private holdMs = 0;
  private heldUntilMs = 0;
  private recoveredMs = -Infinity;
  private turnEnd = EVENTS_PER_TURN;

  constructor(options: KvEventSubscriberOptions) {
    this.options = options;
    this.name = `kv-events ${options.endpoint}`;
    this.rank = options.rank;
    this.problems = new ProblemLog(options.env, options.instance);
    this.history = new KvHistory({
      sink: options.sink,
      read: (payload) => this.read(payload),
      onUnreadable: () =>
        this.fail(this.unread ?? { kind: 'payload', text: `a message of ${options.endpoint} cannot be read` }),
      canReplay: () => this.replay?.isAvailable ?? false,
      askReplay: (from) => this.replay?.ask(from),
      defer: (work) => void setImmediate(() => this.guard(work)),
      onBlindReplay: () =>
        this.noteReplay(
          'buffer',
          `${options.replayEndpoint} has no batch to replay: set "buffer_steps" in vLLM's --kv-events-config, for example to 10000`,
        ),
    });
  }

  start(): void {
    if (this.isRunning) return;
    this.isRunning = true;
    this.open().catch((error: unknown) => this.broken(error));
  }

  stop(): void {
    this.isRunning = false;
    this.timer?.cancel();
    this.timer = undefined;
    this.history.stop();
    this.replay?.close();
    this.closeSocket();
    this.failure = undefined;
    this.replayProblem = undefined;
  }

  /** The account of the events is empty again: they are told from their beginning. */
  startAnew(): void {
    if (this.isConnected && !this.failure) this.guard(() => this.history.start());
  }

  latest(): { value: KvStreamFigures; atMs: number } {
    return { value: this.figures(), atMs: this.options.env.clock.nowMs() };
  }

  status(): CollectorStatus {
    const error = (this.failure ?? this.replayProblem)?.text ?? this.connectionProblem();
    return { name: this.name, ok: error === undefined, lastOkMs: this.lastMessageMs, lastDurationMs: undefined, error };
  }

  private figures(): KvStreamFigures {
    const { history, options } = this;
    return {
      ...history.counts,
      endpoint: options.endpoint,
      replayEndpoint: options.replayEndpoint,
      connected: this.isConnected,
      everConnected: this.wasConnected,
      history: history.hasBegun ? (history.isComplete ? 'complete' : 'partial') : 'none',
      lastSeq: history.lastSeq,
      silentMs: this.lastMessageMs === undefined ? undefined : options.env.clock.nowMs() - this.lastMessageMs,
      bad: { ...this.bad },
      problem: this.status().error,
    };
  }

  private connectionProblem(): string | undefined {
    const { endpoint, env } = this.options;
    if (this.isConnected) return undefined;
    if (this.wasConnected)
      return `not connected to ${endpoint} for ${Math.round((env.clock.nowMs() - this.downMs) / 1000)} s`;
    return (
      `never connected to ${endpoint}: start vLLM with --kv-events-config '{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:<port>"}' ` +
      '(without the * it does not listen), and set kvEvents.endpoint to that port'
    );
  }

  private async open(): Promise<void> {
    const { env, replayEndpoint } = this.options;
    try {
      this.zmq = await loadZmq();
    } catch (error) {
      const text = `the package zeromq does not load (${errorMessage(error).split('\n', 1)[0]}): run \`npm ci\` on this machine, or take kvEvents out of the configuration`;
      if (this.isRunning) this.fail({ kind: 'library', text });
      return;
    }
    // Stopped meanwhile, or stopped and started.
    if (!this.isRunning || this.timer) return;
    if (replayEndpoint !== undefined) this.replay = this.makeReplay(this.zmq, replayEndpoint);
    this.connect();
    this.timer = env.clock.every(POLL_MS, () => this.guard(() => this.tick()));
  }

  private makeReplay(zmq: Zmq, endpoint: string): ReplayClient {
    return new ReplayClient(zmq, endpoint, this.options.env.clock, {
      onBatch: (batch) => {
        this.replayProblem = undefined;
        this.guard(() => this.history.replayed(batch));
        return this.turn();
      },
      onEnd: (isCut) => {
        if (this.replayProblem?.kind === 'replay') this.replayProblem = undefined;
        this.guard(() => this.history.replayEnded(isCut));
      },
      onAbsent: () => {
        if (this.isConnected) {
          this.noteReplay(
            'replay',
            `${endpoint} does not answer, so lost events stay lost: set kvEvents.replayEndpoint to the "replay_endpoint" of vLLM's --kv-events-config, or take it out`,
          );
        }
        this.guard(() => this.history.replayAbsent());
      },
      onDown: () => this.history.suspect(),
    });
  }

  private connect(): void {
    const { env, endpoint } = this.options;
    this.openedMs = env.clock.nowMs();
    this.isAccepted = false;
    const isCurrent = (socket: Subscriber): boolean => socket === this.socket;
    const events = {
      onAccepted: (socket: Subscriber): void => {
        if (isCurrent(socket)) this.isAccepted = true;
      },
      onUp: (socket: Subscriber): void => {
        if (isCurrent(socket)) this.guard(() => this.onUp());
      },
      onDown: (socket: Subscriber): void => {
        if (isCurrent(socket) && this.isConnected) this.guard(() => this.onDown());
      },
    };
    try {
      this.socket = subscribeTo(this.zmq as Zmq, endpoint, events, (socket, frames) =>
        isCurrent(socket) ? this.guard(() => this.onFrames(frames)) : undefined,
      );
    } catch (error) {
      this.fail({
        kind: 'endpoint',
        text: `kvEvents.endpoint ${endpoint} cannot be used: ${errorMessage(error)}; set it to the address that vLLM's --kv-events-config has, with a host for *`,
      });
    }
  }

  private closeSocket(): void {
    const { socket } = this;
    this.socket = undefined;
    this.isConnected = false;
    socket?.close();
  }

  private onUp(): void {
    this.isConnected = true;
    this.wasConnected = true;
    this.replay?.refresh();
    if (this.failure?.kind === 'endpoint') this.recover();
    else if (this.history.isRunning) this.history.reconnected();
    else if (this.failure === undefined) this.history.start();
  }

  private onDown(): void {
    this.isConnected = false;
    this.downMs = this.options.env.clock.nowMs();
    this.history.disconnected();
  }

  private tick(): void {
    if (this.isConnected) {
      this.history.poll();
      return;
    }
    const { env, endpoint } = this.options;
    const nowMs = env.clock.nowMs();
    if (nowMs - this.openedMs < REOPEN_MS) return;
    if (this.isAccepted && (!this.wasConnected || nowMs - this.downMs > PATIENCE_MS)) {
      this.fail({
        kind: 'endpoint',
        text: `what listens at ${endpoint} publishes nothing in ZeroMQ's protocol: set kvEvents.endpoint to the "endpoint" of vLLM's --kv-events-config, not to its HTTP or replay port`,
      });
    }
    this.closeSocket();
    this.connect();
  }

  private onFrames(frames: Buffer[]): Promise<void> | undefined {
    const { endpoint, env } = this.options;
    this.lastMessageMs = env.clock.nowMs();
    const batch = parseLive(frames);
    if (!batch) {
      this.fail({
        kind: 'frames',
        text: `${endpoint} sends messages that are not vLLM's (topic, 8 bytes of number, payload): set kvEvents.endpoint to the "endpoint" of vLLM's --kv-events-config`,
      });
    } else if (!this.failure) {
      this.history.live(batch);
    } else if (this.read(batch.payload) === undefined) {
      this.fail(this.unread ?? this.failure);
    } else if (this.lastMessageMs >= this.heldUntilMs) {
      this.recover();
      this.history.live(batch);
    }
    return this.turn();
  }

  /** Lets the event loop run after a number of events: they may come as fast as they can be read. */
  private turn(): Promise<void> | undefined {
    const { events } = this.history.counts;
    if (events < this.turnEnd) return undefined;
    this.turnEnd = events + EVENTS_PER_TURN;
    return new Promise((resolve) => setImmediate(resolve));
  }

  /**
   * What goes wrong here is ours, and must not reach the requests: the view does without the stream until its next good
   * message.
   */
  private guard<T>(work: () => T): T | undefined {
    try {
      return work();
    } catch (error) {
      this.broken(error);
      return undefined;
    }
  }

  private broken(error: unknown): void {
    if (this.failure?.kind !== 'own')
      this.options.env.log.error(
        { instance: this.options.instance, err: error },
        'KV events: a message could not be handled',
      );
    try {
      this.fail({
        kind: 'own',
        text: `a message could not be handled (${errorMessage(error)}): the cache view does without KV events for now`,
      });
    } catch {
      // The sink cannot even fail; it is not called again before its next beginning.
    }
  }

  private read(payload: Uint8Array): readonly KvEvent[] | undefined {
    let batch: KvEventBatch;
    try {
      batch = decodeBatch(payload);
    } catch (error) {
      if (!(error instanceof LodestarError)) throw error;
      return this.cannotRead({
        kind: 'payload',
        text: `${error.message}: is ${this.options.endpoint} the "endpoint" of vLLM's --kv-events-config?`,
      });
    }
    if (batch.unknown.length > 0) {
      return this.cannotRead({
        kind: 'type',
        text: `the engine sends events that are not known here (${batch.unknown.join(', ')}): update Lodestar; until then the cache view does without KV events`,
      });
    }
    return this.checkRank(batch.dataParallelRank) ? batch.events : undefined;
  }

  private checkRank(rank: number | undefined): boolean {
    const { endpoint, env, instance } = this.options;
    if (rank === undefined || rank === this.rank) return true;
    if (this.rank === undefined) {
      this.rank = rank;
      if (rank > 0)
        env.log.info(
          { instance, rank },
          'the KV events are those of a data-parallel rank; if ranks share the url, set dataParallelRank so that requests go to this one',
        );
      return true;
    }
    const fix = `set dataParallelRank to ${rank}, or kvEvents.endpoint to vLLM's own without the rank, which is added to the port`;
    this.cannotRead({
      kind: 'rank',
      text: `${endpoint} has the events of data-parallel rank ${rank}, and this instance is rank ${this.rank}: ${fix}`,
    });
    return false;
  }

  private cannotRead(problem: Problem): undefined {
    this.unread = problem;
    this.bad[problem.kind] = (this.bad[problem.kind] ?? 0) + 1;
    this.problems.say(problem);
  }

  /** The stream cannot be used. While it fails again and again, it is not tried again at once. */
  private fail(problem: Problem): void {
    const nowMs = this.options.env.clock.nowMs();
    if (this.unread !== problem) this.cannotRead(problem);
    this.unread = undefined;
    const isNews = !this.failure;
    this.failure = problem;
    if (isNews) {
      const isSteady = nowMs - this.recoveredMs >= STEADY_MS;
      this.holdMs = isSteady ? 0 : Math.min(MAX_HOLD_MS, Math.max(MIN_HOLD_MS, this.holdMs * 2));
      this.history.stop();
      this.replay?.giveUp();
      if (this.options.rank === undefined) this.rank = undefined;
    }
    this.heldUntilMs = nowMs + this.holdMs;
    if (isNews) this.options.sink.fail(problem.text);
  }

  private recover(): void {
    const { env, instance } = this.options;
    env.log.info({ instance }, 'KV events can be read again');
    this.failure = undefined;
    this.recoveredMs = env.clock.nowMs();
    this.history.start();
  }

  private noteReplay(kind: 'replay' | 'buffer', text: string): void {
    this.replayProblem = { kind, text };
    this.problems.say(this.replayProblem);
  }
}
