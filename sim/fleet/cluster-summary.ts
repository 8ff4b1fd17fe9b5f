import type { GpuProfile } from '../engine/gpus.ts';
import type { Cluster, ClusterInstance } from './cluster.ts';

/** A cluster for people and files: each GPU's figures once, each instance by the name of its GPU. */
export interface ClusterSummary extends Omit<Cluster, 'instances'> {
  gpus: Record<string, Pick<GpuProfile, 'c0' | 'c1' | 'c2' | 'c3' | 'c4' | 'T0' | 'c5' | 'kvTokens'>>;
  instances: (Omit<ClusterInstance, 'gpu'> & { gpu: string })[];
}

/** The cluster as the output of a run holds it. */
export function summarizeCluster({ instances, ...cluster }: Cluster): ClusterSummary {
  const gpus = Object.fromEntries(
    instances.map(({ gpu: { key, c0, c1, c2, c3, c4, T0, c5, kvTokens } }) => [
      key,
      { c0, c1, c2, c3, c4, T0, c5, kvTokens },
    ]),
  );
  return { gpus, instances: instances.map((one) => ({ ...one, gpu: one.gpu.key })), ...cluster };
}
