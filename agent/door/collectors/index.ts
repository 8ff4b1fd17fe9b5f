import type { Dispatcher } from 'undici';
import type { AgentConfig, InstanceConfig } from '../../../shared/config/index.ts';
import type { Env } from '../../../shared/env.ts';
import type { Collector, CollectorStatus } from './collector.ts';
import { GpuInventoryCollector } from './gpu-inventory.ts';
import { GpuCollector } from './gpu.ts';
import { HostCollector } from './host.ts';
import { VllmHealthCollector, type VllmHealth } from './vllm-health.ts';
import { VllmMetricsCollector } from './vllm-metrics.ts';

export type { Collector, CollectorStatus } from './collector.ts';
export type { GpuDevice } from './gpu-inventory.ts';
export type { GpuSample } from './gpu.ts';
export type { HostSample } from './host.ts';
export type { EngineFigures, EngineGauges } from './vllm-gauges.ts';
export type { ServedModel, VllmHealth } from './vllm-health.ts';
export type { VllmMetrics } from './vllm-metrics.ts';

/** What collectors are made of. */
export interface CollectorContext {
  config: AgentConfig;
  env: Pick<Env, 'clock' | 'log'>;
  dispatcher: Dispatcher;
  /** Called at once when an instance goes up or down or serves other models. */
  onHealth?: ((instanceId: string, health: VllmHealth) => void) | undefined;
}

/** The collectors of the host, one line each. */
export const hostCollectors = {
  gpu: ({ config, env }: CollectorContext) =>
    new GpuCollector({ nvidiaSmiPath: config.nvidiaSmiPath, periodMs: config.scrape.gpuPeriodMs, env }),
  gpuInventory: ({ config, env }: CollectorContext) => new GpuInventoryCollector(config.nvidiaSmiPath, env),
  host: ({ config, env }: CollectorContext) => new HostCollector(config.scrape.hostPeriodMs, env),
};

/** The collectors of each local instance, one line each. */
export const instanceCollectors = {
  metrics: ({ config, env, dispatcher }: CollectorContext, { url }: InstanceConfig) =>
    new VllmMetricsCollector({ url, periodMs: config.scrape.metricsPeriodMs, dispatcher, env }),
  health: ({ config, env, dispatcher, onHealth }: CollectorContext, { id, url, apiKey }: InstanceConfig) =>
    new VllmHealthCollector({
      url,
      apiKey,
      periodMs: config.scrape.healthPeriodMs,
      timeoutMs: config.suspectAfterMs,
      dispatcher,
      env,
      onChange: (health) => onHealth?.(id, health),
    }),
};

type Made<R extends Record<string, (...args: never[]) => unknown>> = { readonly [K in keyof R]: ReturnType<R[K]> };

/** All collectors of an agent. */
export interface Collectors extends Made<typeof hostCollectors> {
  /** By instance id. */
  readonly instances: ReadonlyMap<string, Made<typeof instanceCollectors>>;
  start(): void;
  stop(): void;
  statuses(): CollectorStatus[];
}

/** Makes the collectors of an agent, stopped. */
export function makeCollectors(context: CollectorContext): Collectors {
  const host = build(hostCollectors, (make) => make(context)) as Made<typeof hostCollectors>;
  const instances = new Map(
    context.config.instances.map((instance) => [
      instance.id,
      build(instanceCollectors, (make) => make(context, instance)) as Made<typeof instanceCollectors>,
    ]),
  );
  const all: Collector<unknown>[] = [
    ...Object.values(host),
    ...[...instances.values()].flatMap((made) => Object.values(made)),
  ];
  return {
    ...host,
    instances,
    start: () => all.forEach((collector) => collector.start()),
    stop: () => all.forEach((collector) => collector.stop()),
    statuses: () => all.map((collector) => collector.status()),
  };
}

function build<R extends object>(registry: R, make: (factory: R[keyof R]) => unknown): unknown {
  return Object.fromEntries(Object.entries(registry).map(([name, factory]) => [name, make(factory as R[keyof R])]));
}
