import { LodestarError } from '../../../shared/errors.ts';
import { METRIC_NAMES, wantedMetricNames, type MetricKey } from './metric-names.ts';
import { parsePrometheus, type PrometheusPage, type PrometheusSample } from './prometheus-text.ts';

/** What one engine (data-parallel rank) says of itself. Counters are totals since its start, in tokens or events. */
export interface EngineGauges {
  running: number;
  waiting: number;
  /** Share of the KV cache held by live requests, 0 to 1; cached blocks that nobody references count as free. */
  kvUsageRatio: number;
  prefixQueries: number;
  prefixHits: number;
  promptTokens: number;
  generationTokens: number;
  preemptions: number;
  /** Asleep: the engine answers /health and hangs on requests. */
  sleeping: boolean;
  /** KV blocks that requests can use, without the reserved null block; undefined where the page does not tell. */
  numGpuBlocks: number | undefined;
  /** Tokens in a block. */
  blockSize: number | undefined;
  /** Tokens the KV cache holds: numGpuBlocks · blockSize. */
  kvTokens: number | undefined;
  /** Whether the engine keeps prefixes for later prompts; undefined where the page does not tell. */
  prefixCaching: boolean | undefined;
}

/** The figures of one vLLM server: sums over its engines (the KV share is their mean), and each engine by its label. */
export interface VllmGauges extends EngineGauges {
  /** Start of the server process in Unix seconds; undefined with several API server processes. */
  processStartS: number | undefined;
  engines: ReadonlyMap<string, EngineGauges>;
}

/**
 * Reads the figures off a /metrics page. Series without an `engine` label (before 0.8) count as engine 0. Throws
 * UPSTREAM_FAILED when the page has no vLLM series at all.
 */
export function readGauges(text: string): VllmGauges {
  const page = parsePrometheus(text, wantedMetricNames);
  const running = find(page, 'running');
  if (running.length === 0) {
    throw new LodestarError(
      'UPSTREAM_FAILED',
      'the metrics page has no vllm:num_requests_running; is the server a vLLM, without --disable-log-stats?',
    );
  }
  const names = [...new Set(running.map(engineOf))].toSorted();
  const engines = new Map(names.map((engine) => [engine, readEngine(page, engine, names.length)]));
  const all = [...engines.values()];
  const sum = (pick: (engine: EngineGauges) => number): number =>
    all.reduce((total, engine) => total + pick(engine), 0);
  const sumKnown = (pick: (engine: EngineGauges) => number | undefined): number | undefined =>
    all.some((engine) => pick(engine) === undefined) ? undefined : sum((engine) => pick(engine) ?? 0);
  return {
    running: sum((engine) => engine.running),
    waiting: sum((engine) => engine.waiting),
    kvUsageRatio: sum((engine) => engine.kvUsageRatio) / all.length,
    prefixQueries: sum((engine) => engine.prefixQueries),
    prefixHits: sum((engine) => engine.prefixHits),
    promptTokens: sum((engine) => engine.promptTokens),
    generationTokens: sum((engine) => engine.generationTokens),
    preemptions: sum((engine) => engine.preemptions),
    sleeping: all.every((engine) => engine.sleeping),
    numGpuBlocks: sumKnown((engine) => engine.numGpuBlocks),
    blockSize: all[0]?.blockSize,
    kvTokens: sumKnown((engine) => engine.kvTokens),
    prefixCaching: all[0]?.prefixCaching,
    processStartS: find(page, 'processStart')[0]?.value,
    engines,
  };
}

function readEngine(page: PrometheusPage, engine: string, engineCount: number): EngineGauges {
  const own = (key: MetricKey): PrometheusSample[] => find(page, key).filter((sample) => engineOf(sample) === engine);
  const value = (key: MetricKey): number => own(key).reduce((total, sample) => total + sample.value, 0);
  const config = own('cacheConfig')[0]?.labels ?? {};
  return {
    running: value('running'),
    waiting: value('waiting'),
    kvUsageRatio: value('kvUsageRatio'),
    prefixQueries: value('prefixQueries'),
    prefixHits: value('prefixHits'),
    promptTokens: value('promptTokens'),
    generationTokens: value('generationTokens'),
    preemptions: value('preemptions'),
    sleeping: own('sleepState').some((sample) => sample.labels.sleep_state === 'awake' && sample.value === 0),
    ...cacheSize(config, engineCount),
    prefixCaching: truth(config.enable_prefix_caching),
  };
}

/**
 * `num_gpu_blocks` is the sum over ranks, `kv_cache_size_tokens` that of one rank; both count the null block of each
 * rank.
 */
function cacheSize(
  labels: Readonly<Record<string, string>>,
  engineCount: number,
): Pick<EngineGauges, 'numGpuBlocks' | 'blockSize' | 'kvTokens'> {
  const blockSize = positive(labels.block_size);
  const sizeTokens = positive(labels.kv_cache_size_tokens);
  const blocks = positive(labels.num_gpu_blocks);
  const withNull =
    sizeTokens !== undefined && blockSize !== undefined
      ? Math.floor(sizeTokens / blockSize)
      : blocks && Math.floor(blocks / engineCount);
  const numGpuBlocks = withNull === undefined ? undefined : Math.max(0, withNull - 1);
  return {
    numGpuBlocks,
    blockSize,
    kvTokens: numGpuBlocks !== undefined && blockSize !== undefined ? numGpuBlocks * blockSize : undefined,
  };
}

function find(page: PrometheusPage, key: MetricKey): readonly PrometheusSample[] {
  for (const name of METRIC_NAMES[key]) {
    const samples = page.samples.get(name);
    if (samples) return samples;
  }
  return [];
}

function engineOf(sample: PrometheusSample): string {
  return sample.labels.engine ?? '0';
}

/** Python's `"True"` and `"False"`. */
function truth(text: string | undefined): boolean | undefined {
  return text === 'True' ? true : text === 'False' ? false : undefined;
}

/** Info labels are Python texts: `"16"`, `"None"`. */
function positive(text: string | undefined): number | undefined {
  const value = Number(text);
  return text !== undefined && Number.isFinite(value) && value > 0 ? value : undefined;
}
