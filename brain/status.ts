import { packageVersion } from '../shared/package-root.ts';
import type { Trust } from '../shared/table.ts';
import type { BlockViews } from './block-views.ts';
import type { Counters } from './counters.ts';
import type { BrainHub } from './hub.ts';
import type { Learner } from './learn.ts';
import type { BackendInfo } from './predictor/backend.ts';
import { policyInForce, type Publisher } from './publish.ts';
import type { Registry } from './registry.ts';
import type { BrainStore, PolicyChoice } from './store.ts';

/** Names of models that the page lists for each instance. */
const MAX_NAMES = 256;

/** State of the training backend: one in force, still starting, or none with the reason. */
export type BackendStatus =
  BackendInfo | { name: null; gpu: false; tried: BackendInfo['tried']; memory: ''; state: string };

export interface StatusSources {
  brainEpoch: number;
  startedWallMs: number;
  hub: BrainHub;
  registry: Registry;
  views: BlockViews;
  learner: Learner;
  publisher: Publisher;
  counters: Counters;
  store: BrainStore;
  backend(): BackendStatus;
  policy(): PolicyChoice & { source: 'config' | 'operator' };
}

export type BrainStatus = ReturnType<typeof brainStatus>;

/** Body of GET /lodestar/status: what an operator asks first. Milliseconds; ratios 0..1. */
export function brainStatus(sources: StatusSources) {
  const { brainEpoch, startedWallMs, hub, registry, views, learner, publisher, counters, store, backend, policy } =
    sources;
  const trust = learner.verdict();
  const table = publisher.table();
  return {
    version: packageVersion,
    brainEpoch,
    startedWallMs,
    agents: agentsOf(hub, registry),
    instances: instancesOf(registry),
    backend: backend(),
    learner: learner.status(),
    trust,
    table: table && {
      version: table.version,
      atWallMs: table.atWallMs,
      instances: table.roster.length,
      net: table.net !== null,
      trust: table.trust.verdict,
    },
    policy: { ...policy(), ...inForce(policy().policy, trust) },
    blocks: views.totals(),
    store: store.status(),
    leftOut: hub.faults.status(),
    counters: { ...counters },
  };
}

function inForce(policy: PolicyChoice['policy'], trust: Trust): { inForce: PolicyChoice['policy']; why: string } {
  const name = policyInForce(policy, trust);
  return { inForce: name, why: name === policy ? `${policy} was chosen` : `learned is not trusted: ${trust.reason}` };
}

function agentsOf(hub: BrainHub, registry: Registry) {
  const held = new Map<string, string[]>();
  for (const { agent, instance } of registry.roster()) held.set(agent, [...(held.get(agent) ?? []), instance]);
  const connected = hub.peers().map((peer) => ({
    agent: peer.agent,
    connected: true,
    connectedForMs: hub.connectedForMs(peer.agent) ?? null,
    epoch: peer.epoch,
    version: peer.hello.version,
    doorUrl: peer.hello.doorUrl,
    slow: peer.slow(),
    instances: held.get(peer.agent) ?? [],
  }));
  const present = new Set(connected.map(({ agent }) => agent));
  const away = [...held].filter(([agent]) => !present.has(agent));
  return [
    ...connected,
    ...away.map(([agent, instances]) => ({
      agent,
      connected: false,
      connectedForMs: null,
      epoch: null,
      version: null,
      doorUrl: null,
      slow: false,
      instances,
    })),
  ];
}

function instancesOf(registry: Registry) {
  return registry.reports().map((report) => ({
    instance: report.instance,
    agent: report.agent,
    doorUrl: report.doorUrl,
    kind: report.kind,
    models: report.models.slice(0, MAX_NAMES),
    modelCount: report.models.length,
    health: report.health,
    draining: report.draining,
    ageMs: report.ageMs,
    incarnation: report.incarnation,
    inFlight: report.ledger.inFlight,
    waiting: report.ledger.waiting,
    workRatio: report.ledger.workRatio,
    kvUsageRatio: report.limits.kvTokens > 0 ? report.ledger.usedTokens / report.limits.kvTokens : null,
    gpuUtilRatio: report.gpu?.utilRatio ?? null,
    law: report.law,
  }));
}
