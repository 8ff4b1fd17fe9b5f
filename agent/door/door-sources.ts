import type { GpuDevice, GpuSample, HostSample, VllmHealth, VllmMetrics } from './collectors/index.ts';

/** The newest reading of something, and when it was read. */
export interface Reading<T> {
  latest(): { value: T; atMs: number } | undefined;
}

/** Readings of an engine's metrics, with the moment at which each was asked for. */
export interface MetricsReading {
  latest(): { value: VllmMetrics; atMs: number; beganMs: number } | undefined;
  readNow(): Promise<void>;
}

/** The health checks of one engine. */
export interface HealthChecks {
  readonly state: VllmHealth;
  /** clock ms of the newest answer to one; −Infinity before any */
  readonly heardMs: number;
  /** clock ms when the check began that has found the engine gone; undefined while it is not */
  readonly goneMs: number | undefined;
  noteFailure(): void;
}

/** What a door looks at beside the requests themselves: the agent's collectors, or a simulation's. */
export interface DoorSources {
  readonly gpu: Reading<readonly GpuSample[]>;
  readonly gpuInventory: Reading<readonly GpuDevice[]>;
  readonly host: Reading<HostSample>;
  /** By instance id. */
  readonly instances: ReadonlyMap<
    string,
    {
      readonly metrics: MetricsReading;
      readonly health: HealthChecks;
    }
  >;
}
