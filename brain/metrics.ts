import { collectDefaultMetrics, Counter, Gauge, Registry } from 'prom-client';
import { unhandledRejections } from '../shared/process-guard.ts';
import { COUNTERS, type CounterName } from './counters.ts';
import type { BrainStatus } from './status.ts';

const PREFIX = 'lodestar_brain_';

interface GaugeKind {
  name: string;
  help: string;
  labels?: readonly string[];
  read(status: BrainStatus): { value: number | null | undefined; labels?: Record<string, string> }[];
}

const GAUGES: readonly GaugeKind[] = [
  {
    name: 'agents',
    help: 'agents connected',
    read: ({ agents }) => [{ value: agents.filter(({ connected }) => connected).length }],
  },
  { name: 'instances', help: 'instances known, by health', labels: ['health'], read: byHealth },
  { name: 'instance_report_age_seconds', help: 'age of the last report', labels: ['instance'], read: ages },
  {
    name: 'table_version',
    help: 'version of the routing table in force',
    read: ({ table }) => [{ value: table?.version ?? 0 }],
  },
  {
    name: 'table_time_seconds',
    help: 'Unix time of the routing table in force',
    read: ({ table }) => [{ value: table && table.atWallMs / 1000 }],
  },
  {
    name: 'trusted',
    help: '1 if learned scores may decide',
    read: ({ trust }) => [{ value: trust.verdict === 'trusted' ? 1 : 0 }],
  },
  {
    name: 'trust_median_error_ratio',
    help: 'median absolute error of predicted TTFT, as a share of the observed',
    read: ({ trust }) => [{ value: trust.medianApe }],
  },
  {
    name: 'trust_p90_coverage_ratio',
    help: 'share of outcomes at or under the predicted 90th percentile',
    read: ({ trust }) => [{ value: trust.p90Coverage }],
  },
  {
    name: 'prediction_log_error',
    help: 'mean absolute log error of TTFT and TPOT over the last outcomes',
    labels: ['of'],
    read: logErrors,
  },
  { name: 'replay_samples', help: 'samples in the replay buffer', labels: ['pool'], read: pools },
  {
    name: 'round_seconds',
    help: 'duration of the last training round',
    read: ({ learner }) => [{ value: learner.lastRound && learner.lastRound.ms / 1000 }],
  },
  {
    name: 'block_hashes',
    help: 'prefix-block hashes kept for agents that join',
    read: ({ blocks }) => [{ value: blocks.hashes }],
  },
  {
    name: 'store_ok',
    help: '1 if what the brain remembers is written to disk',
    read: ({ store }) => [{ value: store.ok ? 1 : 0 }],
  },
  {
    name: 'unhandled_rejections',
    help: 'rejected promises that nobody has dealt with',
    read: () => [{ value: unhandledRejections() }],
  },
  {
    name: 'backend_info',
    help: 'TensorFlow.js backend in force, and whether it computes on a GPU',
    labels: ['name', 'gpu'],
    read: backends,
  },
];

/** Prometheus text of the brain, read off its status at each scrape. */
export class Metrics {
  private readonly registry = new Registry();
  private readonly counters: readonly [CounterName, Counter][];
  private readonly gauges: readonly [GaugeKind, Gauge][];
  private readonly status: () => BrainStatus;

  constructor(status: () => BrainStatus) {
    this.status = status;
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry, prefix: PREFIX });
    this.counters = (Object.keys(COUNTERS) as CounterName[]).map((name) => [
      name,
      new Counter({ name: `${PREFIX}${snake(name)}_total`, help: COUNTERS[name], registers }),
    ]);
    this.gauges = GAUGES.map((kind) => [
      kind,
      new Gauge({ name: PREFIX + kind.name, help: kind.help, labelNames: [...(kind.labels ?? [])], registers }),
    ]);
  }

  get contentType(): string {
    return this.registry.contentType;
  }

  async text(): Promise<string> {
    const status = this.status();
    for (const [name, counter] of this.counters) {
      counter.reset();
      counter.inc(status.counters[name]);
    }
    for (const [kind, gauge] of this.gauges) {
      gauge.reset();
      for (const { value, labels } of kind.read(status)) gauge.set(labels ?? {}, value ?? Number.NaN);
    }
    return await this.registry.metrics();
  }
}

function byHealth({ instances }: BrainStatus): { value: number; labels: Record<string, string> }[] {
  return ['up', 'starting', 'down'].map((health) => ({
    value: instances.filter((one) => one.health === health).length,
    labels: { health },
  }));
}

function ages({ instances }: BrainStatus): { value: number; labels: Record<string, string> }[] {
  return instances.map(({ instance, ageMs }) => ({ value: ageMs / 1000, labels: { instance } }));
}

function logErrors({ learner }: BrainStatus): { value: number | null; labels: Record<string, string> }[] {
  return [
    { value: learner.championError, labels: { of: 'champion' } },
    { value: learner.priorError, labels: { of: 'prior' } },
  ];
}

function pools({ learner }: BrainStatus): { value: number; labels: Record<string, string> }[] {
  return (['recency', 'diversity'] as const).map((pool) => ({ value: learner.samples[pool], labels: { pool } }));
}

function backends({ backend }: BrainStatus): { value: number; labels: Record<string, string> }[] {
  return backend.name === null ? [] : [{ value: 1, labels: { name: backend.name, gpu: String(backend.gpu) } }];
}

function snake(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
