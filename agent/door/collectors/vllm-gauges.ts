import { LodestarError } from '../../../shared/errors.ts';
import { METRIC_NAMES, wantedMetricNames, type MetricKey } from './metric-names.ts';
import { countOf, labelCountOf, type NoteOdd, shareOf } from './odd-values.ts';
import { parsePrometheus, type PrometheusPage, type PrometheusSample } from './prometheus-text.ts';

/**
 * What one engine (data-parallel rank) says of itself. Counters are totals since its start, in tokens or events. What
 * the page does not have, and what it says and cannot be, is undefined; but requests that it does not count as waiting
 * are none.
 */
export interface EngineFigures {
  running: number | undefined;
  waiting: number | undefined;
  /** Share of the KV cache held by live requests, 0 to 1; cached blocks that nobody references count as free. */
  kvUsageRatio: number | undefined;
  prefixQueries: number | undefined;
  prefixHits: number | undefined;
  promptTokens: number | undefined;
  generationTokens: number | undefined;
  preemptions: number | undefined;
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

/** The same where the load is known. */
export interface EngineGauges extends EngineFigures {
  running: number;
  waiting: number;
}

/** The figures of one vLLM server: sums over its engines (the KV share is their mean), and each engine by its label. */
export interface VllmGauges extends EngineFigures {
  /** Start of the server process in Unix seconds; undefined with several API server processes. */
  processStartS: number | undefined;
  engines: ReadonlyMap<string, EngineFigures>;
}

/** Engines of one server that are told apart. */
const MAX_ENGINES = 256;
const MAX_BLOCK_TOKENS = 1_048_576;
const MAX_BLOCKS = 1e9;
const MAX_KV_TOKENS = 1e12;

/**
 * Reads the figures off a /metrics page. Series without an `engine` label (before 0.8) count as engine 0. `note` is
 * told of figures that cannot be: they count as unknown. Throws UPSTREAM_FAILED when the page has no vLLM series at
 * all.
 */
export function readGauges(text: string, note: NoteOdd = () => undefined): VllmGauges {
  const page = parsePrometheus(text, wantedMetricNames);
  const running = find(page, 'running');
  if (running.length === 0) {
    throw new LodestarError(
      'UPSTREAM_FAILED',
      'the metrics page has no vllm:num_requests_running; is the server a vLLM, without --disable-log-stats?',
    );
  }
  const names = [...new Set(running.map(engineOf))].toSorted().slice(0, MAX_ENGINES);
  const engines = new Map(names.map((engine) => [engine, readEngine(page, engine, names.length, note)]));
  const all = [...engines.values()];
  const sum = (pick: (engine: EngineFigures) => number | undefined): number | undefined => {
    let total = 0;
    for (const engine of all) total += pick(engine) ?? Number.NaN;
    return Number.isNaN(total) ? undefined : total;
  };
  const kvUsageSum = sum((engine) => engine.kvUsageRatio);
  const started = find(page, 'processStart')[0];
  return {
    running: sum((engine) => engine.running),
    waiting: sum((engine) => engine.waiting),
    kvUsageRatio: kvUsageSum === undefined ? undefined : kvUsageSum / all.length,
    prefixQueries: sum((engine) => engine.prefixQueries),
    prefixHits: sum((engine) => engine.prefixHits),
    promptTokens: sum((engine) => engine.promptTokens),
    generationTokens: sum((engine) => engine.generationTokens),
    preemptions: sum((engine) => engine.preemptions),
    sleeping: all.every((engine) => engine.sleeping),
    numGpuBlocks: sum((engine) => engine.numGpuBlocks),
    blockSize: all[0]?.blockSize,
    kvTokens: sum((engine) => engine.kvTokens),
    prefixCaching: all[0]?.prefixCaching,
    processStartS: started && countOf(METRIC_NAMES.processStart[0], started.value, note),
    engines,
  };
}

function readEngine(page: PrometheusPage, engine: string, engineCount: number, note: NoteOdd): EngineFigures {
  const own = (key: MetricKey): PrometheusSample[] => find(page, key).filter((sample) => engineOf(sample) === engine);
  const total = (key: MetricKey, of: typeof countOf): number | undefined => {
    const samples = own(key);
    let sum = samples.length === 0 ? Number.NaN : 0;
    for (const { value } of samples) sum += of(METRIC_NAMES[key][0], value, note) ?? Number.NaN;
    return Number.isNaN(sum) ? undefined : sum;
  };
  const config = own('cacheConfig')[0]?.labels ?? {};
  const usage = total('kvUsageRatio', shareOf);
  return {
    running: total('running', countOf),
    waiting: own('waiting').length === 0 ? 0 : total('waiting', countOf),
    kvUsageRatio: usage === undefined ? undefined : Math.min(1, usage),
    prefixQueries: total('prefixQueries', countOf),
    prefixHits: total('prefixHits', countOf),
    promptTokens: total('promptTokens', countOf),
    generationTokens: total('generationTokens', countOf),
    preemptions: total('preemptions', countOf),
    sleeping: own('sleepState').some((sample) => sample.labels.sleep_state === 'awake' && sample.value === 0),
    ...cacheSize(config, engineCount, note),
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
  note: NoteOdd,
): Pick<EngineFigures, 'numGpuBlocks' | 'blockSize' | 'kvTokens'> {
  const blockSize = labelCountOf('block_size', labels.block_size, MAX_BLOCK_TOKENS, note);
  const sizeTokens = labelCountOf('kv_cache_size_tokens', labels.kv_cache_size_tokens, MAX_KV_TOKENS, note);
  const blocks = labelCountOf('num_gpu_blocks', labels.num_gpu_blocks, MAX_BLOCKS, note);
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
