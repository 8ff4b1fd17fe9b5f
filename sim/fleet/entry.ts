import { type AgentContext, applyTable, makeContext } from '../../agent/entry/context.ts';
import { Attempts, type StartedAttempt } from '../../agent/entry/attempts.ts';
import type { Decision } from '../../agent/entry/decide.ts';
import type { Observed } from '../../agent/entry/answer-observer.ts';
import type { ClientRequest } from '../../agent/request/read.ts';
import { makeBrainReader } from '../../agent/link/brain-reader.ts';
import { ledgerPrompt } from '../../agent/request/prompt.ts';
import type { AgentConfig } from '../../shared/config/index.ts';
import { defaultConfig } from '../../shared/config/index.ts';
import { LodestarError } from '../../shared/errors.ts';
import type { Env } from '../../shared/env.ts';
import type { BrainMessage } from '../../shared/protocol.ts';
import type { SimClock } from './clock.ts';
import type { SimDoor } from './door.ts';
import type { SimHub, SimLink } from './network.ts';
import { SIM_MODEL, SIM_SALT, type SimRequest } from './plan.ts';

const SAMPLES_PERIOD_MS = 100;
const EPOCH = 1;

/** What a simulated client saw of one request, ms since its arrival. */
export interface ClientOutcome {
  readonly request: SimRequest;
  ok: boolean;
  ttftMs: number;
  e2eMs: number;
  outputTokens: number;
  cachedTokens: number;
  /** tokens that were believed to be found cached: when the entry chose, and when the door sent it on */
  entryHitTokens: number;
  doorHitTokens: number;
  instance: string;
  policy: string;
  predictedTtftMs: number;
  predictedTtftP90Ms: number;
  /** ms over the best instance at the moment of the decision; NaN where it was not looked at */
  regretMs: number;
}

export interface SimEntryOptions {
  policy: AgentConfig['policy'];
  objective: AgentConfig['objective'];
  sloTtftMs: number | undefined;
  sloTpotMs: number | undefined;
  /** one way to a door, ms */
  hopMs: number;
}

/**
 * An agent on virtual time as an entry without instances of its own: the request path of agent/entry/route.ts, with
 * engines instead of sockets at its end.
 */
export class SimEntry implements SimLink {
  readonly agent: string;
  readonly context: AgentContext;
  /** called with each decision, before anything is sent */
  onDecision: (request: SimRequest, decision: Decision) => number = () => NaN;
  private readonly clock: SimClock;
  private readonly hub: SimHub;
  private readonly doors: ReadonlyMap<string, SimDoor>;
  private readonly options: SimEntryOptions;
  private readonly read: (message: BrainMessage) => void;

  constructor(
    agent: string,
    env: Env,
    clock: SimClock,
    hub: SimHub,
    doors: ReadonlyMap<string, SimDoor>,
    options: SimEntryOptions,
  ) {
    this.agent = agent;
    this.clock = clock;
    this.hub = hub;
    this.doors = doors;
    this.options = options;
    const config: AgentConfig = {
      ...defaultConfig('token-of-a-simulation').agent,
      id: agent,
      policy: options.policy,
      objective: options.objective,
    };
    this.context = makeContext(config, 'token-of-a-simulation', env, EPOCH, []);
    this.context.salt = SIM_SALT;
    this.read = makeBrainReader(this.context, {
      open: (sealed) => hub.open(sealed),
      onTable: (table) => applyTable(this.context, new Map(), table),
      keep: () => undefined,
      resync: (blocks) => hub.send(agent, { t: 'resync', blocks }),
      resend: () => undefined,
      resendBlocks: () => undefined,
    });
  }

  start(): void {
    this.hub.join(this, EPOCH);
    this.clock.every(SAMPLES_PERIOD_MS, () => this.flushSamples());
  }

  onMessage(message: BrainMessage): void {
    if (message.t === 'ack') this.context.samples.ack(message.batch);
    else this.read(message);
  }

  /** A client's request arrives; `done` hears what became of it. */
  submit(request: SimRequest, done: (outcome: ClientOutcome) => void): void {
    new Routing(this, this.context, this.clock, this.doors, this.options, request, done).attempt();
  }

  private flushSamples(): void {
    const { samples } = this.context;
    for (let batch = samples.take(); batch; batch = samples.take())
      this.hub.sendSamples(this.agent, { ...batch, dropped: samples.dropped });
  }
}

/** The life of one request at its entry, as agent/entry/route.ts has it. */
class Routing {
  private readonly entry: SimEntry;
  private readonly context: AgentContext;
  private readonly clock: SimClock;
  private readonly doors: ReadonlyMap<string, SimDoor>;
  private readonly hopMs: number;
  private readonly request: SimRequest;
  private readonly done: (outcome: ClientOutcome) => void;
  private readonly client: ClientRequest;
  private readonly attempts: Attempts;
  private readonly arrivedMs: number;

  constructor(
    entry: SimEntry,
    context: AgentContext,
    clock: SimClock,
    doors: ReadonlyMap<string, SimDoor>,
    options: SimEntryOptions,
    request: SimRequest,
    done: (outcome: ClientOutcome) => void,
  ) {
    this.entry = entry;
    this.context = context;
    this.clock = clock;
    this.doors = doors;
    this.hopMs = options.hopMs;
    this.request = request;
    this.done = done;
    this.arrivedMs = clock.nowMs();
    this.client = {
      method: 'POST',
      path: '/v1/completions',
      headers: {},
      body: [],
      model: SIM_MODEL,
      stream: true,
      usageSplice: undefined,
      prompt: request.bytes,
      promptBytes: request.bytes.length,
      promptEnd: 0,
      promptIsTokens: true,
      maxTokens: 0,
      sequences: 1,
      priority: 0,
      cacheSalt: '',
      client: request.client,
      sloTtftMs: options.sloTtftMs,
      sloTpotMs: options.sloTpotMs,
    };
    this.attempts = new Attempts(context, this.client, request.print);
  }

  attempt(): void {
    const started = this.attempts.begin();
    if (!started) {
      this.fail();
      return;
    }
    const regretMs = this.entry.onDecision(this.request, started.decision);
    const door = this.doors.get(started.decision.view.id);
    const startMs = this.clock.nowMs();
    this.clock.after(this.hopMs, () => door && this.deliver(door, started, startMs, regretMs));
  }

  private deliver(door: SimDoor, started: StartedAttempt, startMs: number, regretMs: number): void {
    const { clock, hopMs, context, client, request } = this;
    const observed: Observed = {
      ttftMs: undefined,
      lastTokenMs: undefined,
      tokens: 0,
      usage: undefined,
      inBandError: false,
    };
    const prompt = ledgerPrompt(context, client, request.print);
    door.deliver(
      request,
      prompt,
      { entry: this.entry.agent, epoch: EPOCH, seq: started.admission.seq, watched: false },
      {
        onFirstToken: (report) => {
          clock.after(hopMs, () => {
            observed.ttftMs = clock.nowMs() - startMs;
            context.instances.applyReport(report);
          });
        },
        onEnd: (usage, doorHitTokens) => {
          clock.after(hopMs, () => {
            observed.lastTokenMs = clock.nowMs() - startMs;
            observed.tokens = usage.outputTokens;
            observed.usage = { ...usage, engineTtftMs: undefined };
            this.finish(started, observed, startMs, { regretMs, doorHitTokens });
          });
        },
        onRefused: () => void clock.after(hopMs, () => this.refused(started, observed, startMs)),
        onError: () => void clock.after(hopMs, () => this.broken(started, observed, startMs)),
      },
    );
  }

  private finish(
    started: StartedAttempt,
    observed: Observed,
    startMs: number,
    seen: { regretMs: number; doorHitTokens: number },
  ): void {
    const { clock, arrivedMs } = this;
    const { decision } = started;
    this.attempts.end(started, {
      ending: 'answered',
      begun: true,
      httpStatus: 200,
      error: undefined,
      refusal: undefined,
      restMs: 0,
      observed,
      e2eMs: clock.nowMs() - startMs,
    });
    this.done({
      request: this.request,
      ok: true,
      ttftMs: startMs - arrivedMs + (observed.ttftMs as number),
      e2eMs: clock.nowMs() - arrivedMs,
      outputTokens: observed.tokens,
      cachedTokens: observed.usage?.cachedTokens ?? 0,
      entryHitTokens: decision.hitTokens,
      instance: decision.view.id,
      policy: decision.policy,
      predictedTtftMs: decision.predictedTtftMs,
      predictedTtftP90Ms: decision.predictedTtftP90Ms,
      ...seen,
    });
  }

  /** A client's error: another instance is not tried. */
  private refused(started: StartedAttempt, observed: Observed, startMs: number): void {
    this.attempts.end(started, {
      ending: 'rejected',
      begun: true,
      httpStatus: 400,
      error: undefined,
      refusal: undefined,
      restMs: 0,
      observed,
      e2eMs: this.clock.nowMs() - startMs,
    });
    this.fail();
  }

  private broken(started: StartedAttempt, observed: Observed, startMs: number): void {
    const error = new LodestarError('UPSTREAM_FAILED', 'the simulated engine died');
    const begun = observed.ttftMs !== undefined;
    const httpStatus = begun ? 200 : undefined;
    const goesOn = this.attempts.end(started, {
      ending: 'reset',
      begun,
      httpStatus,
      error,
      refusal: undefined,
      restMs: 0,
      observed,
      e2eMs: this.clock.nowMs() - startMs,
    });
    if (goesOn) this.attempt();
    else this.fail();
  }

  private fail(): void {
    const none = {
      ttftMs: NaN,
      e2eMs: NaN,
      outputTokens: 0,
      cachedTokens: 0,
      entryHitTokens: 0,
      doorHitTokens: 0,
      instance: '',
      policy: '',
      predictedTtftMs: NaN,
      predictedTtftP90Ms: NaN,
      regretMs: NaN,
    };
    this.done({ request: this.request, ok: false, ...none });
  }
}
