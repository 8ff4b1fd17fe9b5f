import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120];

/** Values of a gauge with labels, read at each scrape. */
export interface LabelledGauge {
  help: string;
  labels: readonly string[];
  read(): Iterable<{ labels: Record<string, string>; value: number }>;
}

/** The agent's Prometheus series; docs/metrics.md lists them. */
export class AgentMetrics {
  readonly registry = new Registry();
  readonly requests: Counter<'instance' | 'status' | 'culprit'>;
  readonly decisions: Counter<'policy' | 'reason'>;
  readonly retries: Counter;
  readonly ttftSeconds: Histogram<'instance'>;
  readonly e2eSeconds: Histogram<'instance'>;
  readonly ttftErrorRatio: Histogram;
  readonly decisionSeconds: Histogram;
  readonly hitTokens: Counter<'kind'>;

  constructor(gauges: Record<string, { help: string; read: () => number }>, labelled: Record<string, LabelledGauge>) {
    const registers = [this.registry];
    this.requests = new Counter({
      name: 'lodestar_agent_attempts_total',
      help: 'Attempts by instance, how they ended and who caused it',
      labelNames: ['instance', 'status', 'culprit'],
      registers,
    });
    this.decisions = new Counter({
      name: 'lodestar_agent_decisions_total',
      help: 'Decisions by policy and reason',
      labelNames: ['policy', 'reason'],
      registers,
    });
    this.retries = new Counter({ name: 'lodestar_agent_retries_total', help: 'Attempts after the first', registers });
    this.ttftSeconds = new Histogram({
      name: 'lodestar_agent_ttft_seconds',
      help: 'Dispatch to first byte of streamed answers',
      labelNames: ['instance'],
      buckets: SECONDS,
      registers,
    });
    this.e2eSeconds = new Histogram({
      name: 'lodestar_agent_e2e_seconds',
      help: 'Dispatch to last byte',
      labelNames: ['instance'],
      buckets: SECONDS,
      registers,
    });
    this.ttftErrorRatio = new Histogram({
      name: 'lodestar_agent_ttft_error_ratio',
      help: '|predicted − observed| / observed TTFT',
      buckets: [0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 2, 5],
      registers,
    });
    this.decisionSeconds = new Histogram({
      name: 'lodestar_agent_decision_seconds',
      help: 'Snapshot, features, scores and choice',
      buckets: [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3],
      registers,
    });
    this.hitTokens = new Counter({
      name: 'lodestar_agent_hit_tokens_total',
      help: 'Prompt tokens believed cached at dispatch, and reported cached',
      labelNames: ['kind'],
      registers,
    });
    this.addGauges(gauges);
    this.addLabelled(labelled);
  }

  /** Adds the figures of the process itself. */
  addProcessFigures(): void {
    collectDefaultMetrics({ register: this.registry, prefix: 'lodestar_agent_' });
  }

  private addGauges(gauges: Record<string, { help: string; read: () => number }>): void {
    for (const [name, { help, read }] of Object.entries(gauges)) {
      const gauge = new Gauge({
        name: `lodestar_agent_${name}`,
        help,
        registers: [],
        collect() {
          this.set(read());
        },
      });
      this.registry.registerMetric(gauge);
    }
  }

  private addLabelled(labelled: Record<string, LabelledGauge>): void {
    for (const [name, { help, labels, read }] of Object.entries(labelled)) {
      const gauge = new Gauge({
        name: `lodestar_agent_${name}`,
        help,
        labelNames: labels,
        registers: [],
        collect() {
          this.reset();
          for (const { labels: of, value } of read()) this.set(of, value);
        },
      });
      this.registry.registerMetric(gauge);
    }
  }
}
