import { packageVersion } from '../shared/package-root.ts';
import type { FaultLog } from '../shared/fault-log.ts';
import type { Collectors } from './door/collectors/index.ts';
import type { AgentContext } from './entry/context.ts';

/** Names of models that the page lists for each instance. */
const MAX_NAMES = 256;

/** Where the status page reads from besides the context. */
export interface StatusSources {
  collectors: Collectors;
  /** what the brain and other doors sent that does not fit */
  faults: FaultLog;
  brain(): { url: string; connected: boolean; lastError: string | undefined };
}

/** Everything an operator asks first: who is in the fleet, how old each state is, which policy routes, and why. */
export function agentStatus(context: AgentContext, { collectors, faults, brain }: StatusSources) {
  const nowMs = context.env.clock.nowMs();
  context.instances.readLocal(context.draining);
  const views = [...context.instances.views.values()];
  return {
    agent: context.config.id,
    version: packageVersion,
    epoch: context.epoch,
    draining: context.draining,
    inFlight: context.inFlight,
    brain: brain(),
    leftOut: faults.status(),
    routing: context.tables.status(),
    samples: { waiting: context.samples.size, dropped: context.samples.dropped },
    cacheIndexBlocks: context.instances.index.blockCount,
    cacheIndexRefused: context.instances.index.refused,
    instances: views.map((view) => ({
      instance: view.id,
      local: view.local !== undefined,
      doorUrl: view.report?.doorUrl ?? view.doorUrl,
      health: view.report?.health ?? 'unknown',
      doubt: view.local?.life.doubt ?? null,
      draining: view.report?.draining ?? false,
      breaker: view.breaker.state,
      ageMs: Number.isFinite(view.describesMs) ? Math.max(0, nowMs - view.describesMs) : null,
      linkMs: view.linkMs,
      reservations: view.reservations.length,
      cachedBlocks: context.instances.index.blocksOf(view.id),
      expectedPrompts: view.expected.size,
      cache: view.report?.cache ?? null,
      kvEvents: view.local?.kvEvents?.latest().value ?? null,
      models: view.report?.models.slice(0, MAX_NAMES) ?? [],
      modelCount: view.report?.models.length ?? 0,
      oddFigures: view.local?.faults.status() ?? null,
      kind: view.report?.kind ?? null,
      limits: view.report?.limits ?? null,
      ledger: view.report?.ledger ?? null,
      law: view.report?.law ?? null,
      engine: view.report?.engine ?? null,
      gpu: view.report?.gpu ?? null,
    })),
    collectors: [...collectors.statuses(), ...views.flatMap((view) => view.local?.kvEvents?.status() ?? [])],
  };
}
