import { setTimeout as sleep } from 'node:timers/promises';
import type { PolicyName } from '../../shared/choice/policies/index.ts';
import type { Clock } from '../../shared/env.ts';
import { LodestarError } from '../../shared/errors.ts';
import { planRequests, runLoad, type LoadResult, type TraceRequest } from '../../sim/workloads/index.ts';
import { difference, readCounters, type FleetCounters } from './counters.ts';
import type { BrainView, FleetClient } from './fleet-client.ts';
import { noteOutcome, type DemoState, type PhaseState } from './state.ts';
import { LENGTH_SCALE } from './traffic.ts';
import { readUsage, usageBetween, type UsageSpan } from './usage.ts';

const POLL_MS = 100;
const WATCH_MS = 1000;
const SETTLE_MS = 15_000;

export interface PhaseDeps {
  client: FleetClient;
  state: DemoState;
  requests: readonly TraceRequest[];
  model: string;
  processes: readonly { name: string; pid: number }[];
  clock: Clock;
  signal: AbortSignal;
}

/** A finished phase: what clients saw, what the fleet counted, what it cost. */
export interface PhaseResult {
  policy: PolicyName;
  load: LoadResult;
  counters: FleetCounters;
  usage: UsageSpan;
  /** Requests in flight at each instance, mean over looks a second apart, of the brain. */
  meanInFlight: Record<string, number>;
  /** The brain at the end of the phase. */
  brain: BrainView | undefined;
}

/** Waits until every agent sees every instance up. */
export async function untilFleetIsUp({ client, signal }: Pick<PhaseDeps, 'client' | 'signal'>): Promise<void> {
  await until(signal, async () => {
    for (const { agent, instances } of await client.agents()) {
      const up = instances.filter(({ health }) => health === 'up').length;
      if (up < client.nodes.length) return `${agent} sees ${up} of ${client.nodes.length} instances up`;
    }
    return undefined;
  });
}

/**
 * One phase: idle fleet → empty caches → policy in force at every entry → the trace at its times, round robin over all
 * entries. Nothing is sent before it, and every request of it counts.
 */
export async function runPhase(deps: PhaseDeps, index: 0 | 1): Promise<PhaseResult> {
  const { client, state, requests, model, processes, clock, signal } = deps;
  const phase = state.phases[index];
  state.step = index === 0 ? 'fleet is up' : `done; caches are emptied for ${phase.policy}`;
  await emptyCaches(deps);
  await bringIntoForce(deps, phase.policy);
  signal.throwIfAborted();
  state.step = `${phase.policy} routes`;
  state.current = index;
  const countersBefore = await readCounters(client);
  const usageBefore = readUsage(processes);
  const watch = new PhaseWatch(deps, phase, countersBefore);
  const load = await runLoad(
    {
      urls: client.nodes.map(({ agentUrl }) => agentUrl),
      requests: planRequests(requests, LENGTH_SCALE),
      api: 'completions',
      model,
      clock,
      signal,
      onOutcome: (outcome) => noteOutcome(phase, outcome),
    },
    (progress) => {
      phase.progress = progress;
    },
  );
  signal.throwIfAborted();
  const usage = usageBetween(usageBefore, readUsage(processes));
  await watch.stop();
  const counters = difference(await readCounters(client), countersBefore);
  phase.counters = counters;
  return { policy: phase.policy, load, counters, usage, meanInFlight: watch.meanInFlight(), brain: state.brain };
}

/** Empty caches at the engines, and no entry that believes otherwise. */
async function emptyCaches({ client, signal }: PhaseDeps): Promise<void> {
  await until(signal, async () => {
    for (const { agent, inFlight, instances } of await client.agents()) {
      if (inFlight > 0) return `${agent} holds ${inFlight} requests`;
      const busy = instances.find(({ ledger }) => (ledger?.inFlight ?? 0) > 0);
      if (busy) return `${agent} sees ${busy.ledger?.inFlight} requests in flight at ${busy.instance}`;
    }
    return undefined;
  });
  await client.resetCaches();
  await until(signal, async () => {
    const believer = (await client.agents()).find(({ cacheIndexBlocks }) => cacheIndexBlocks > 0);
    return believer && `${believer.agent} believes that ${believer.cacheIndexBlocks} blocks are cached`;
  });
}

/**
 * Every entry routes by a table of this policy. `learned` is trusted or not: entries that do not trust it say so in
 * their decisions.
 */
async function bringIntoForce({ client, signal }: PhaseDeps, policy: PolicyName): Promise<void> {
  const version = await client.choosePolicy(policy);
  await until(signal, async () => {
    const late = (await client.agents()).find(({ routing }) => (routing.tableVersion ?? 0) < version);
    return late && `${late.agent} has routing table ${late.routing.tableVersion ?? 'none'}, not ${version}`;
  });
}

/** Looks at brain and counters each second while a phase runs; a look that fails is skipped. */
class PhaseWatch {
  private readonly deps: PhaseDeps;
  private readonly phase: PhaseState;
  private readonly before: FleetCounters;
  private readonly startMs: number;
  private readonly inFlight: Record<string, number[]> = {};
  private readonly loop: Promise<void>;
  private readonly ended = new AbortController();

  constructor(deps: PhaseDeps, phase: PhaseState, before: FleetCounters) {
    this.deps = deps;
    this.phase = phase;
    this.before = before;
    this.startMs = deps.clock.nowMs();
    this.loop = this.run();
  }

  /** One last look, so that the figures are those of the end. */
  async stop(): Promise<void> {
    this.ended.abort();
    await this.loop;
    await this.look();
  }

  meanInFlight(): Record<string, number> {
    return Object.fromEntries(
      Object.entries(this.inFlight).map(([name, values]) => [
        name,
        values.reduce((sum, value) => sum + value, 0) / values.length,
      ]),
    );
  }

  private async run(): Promise<void> {
    const signal = AbortSignal.any([this.ended.signal, this.deps.signal]);
    while (!signal.aborted) {
      await this.look();
      await sleep(WATCH_MS, undefined, { signal }).catch(() => undefined);
    }
  }

  private async look(): Promise<void> {
    const { client, state, clock } = this.deps;
    try {
      const [brain, counters] = await Promise.all([client.brain(), readCounters(client)]);
      state.brain = brain;
      this.phase.counters = difference(counters, this.before);
      if (brain.trust.verdict === 'trusted') state.trustedAfterMs ??= clock.nowMs() - this.startMs;
      if (this.ended.signal.aborted) return;
      for (const { instance, inFlight } of brain.instances) (this.inFlight[instance] ??= []).push(inFlight);
    } catch {
      // The view keeps its last figures; a process that has died ends the demo by itself.
    }
  }
}

/** Waits until nothing is missing any more; `missing` says what is. */
async function until(signal: AbortSignal, missing: () => Promise<string | undefined>): Promise<void> {
  const end = performance.now() + SETTLE_MS;
  for (let what = await missing(); what !== undefined; what = await missing()) {
    if (performance.now() > end)
      throw new LodestarError('UPSTREAM_TIMEOUT', `the fleet did not settle within ${SETTLE_MS / 1000} s: ${what}`);
    await sleep(POLL_MS, undefined, { signal });
  }
}
