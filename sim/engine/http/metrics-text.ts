import type { Histogram } from '../histogram.ts';
import type { Emulator } from './emulator.ts';

type Labels = Record<string, string>;

/**
 * Collects series in the way Python's prometheus_client prints them: labels in order, floats with a point, a `_created`
 * gauge each.
 */
class Exposition {
  private readonly lines: string[] = [];
  private readonly base: Labels;
  private readonly created: string;

  constructor(base: Labels, createdS: number) {
    this.base = base;
    this.created = createdS.toExponential(16).replace('e+', 'e+0');
  }

  gauge(name: string, help: string, values: [Labels, number][]): void {
    this.head(name, help, 'gauge');
    for (const [labels, value] of values) this.sample(name, labels, pythonFloat(value));
  }

  counter(name: string, help: string, values: [Labels, number][]): void {
    this.head(`${name}_total`, help, 'counter');
    for (const [labels, value] of values) this.sample(`${name}_total`, labels, pythonFloat(value));
    this.createdGauge(
      name,
      help,
      values.map(([labels]) => labels),
    );
  }

  histogram(name: string, help: string, histogram: Histogram): void {
    this.head(name, help, 'histogram');
    let cumulative = 0;
    histogram.counts.forEach((count, i) => {
      cumulative += count;
      const bound = histogram.bounds[i];
      this.sample(`${name}_bucket`, { le: bound === undefined ? '+Inf' : pythonFloat(bound) }, pythonFloat(cumulative));
    });
    this.sample(`${name}_count`, {}, pythonFloat(histogram.count));
    this.sample(`${name}_sum`, {}, pythonFloat(histogram.sum));
    this.createdGauge(name, help, [{}]);
  }

  /** A series with exactly these labels. */
  info(name: string, help: string, labels: Labels): void {
    this.head(name, help, 'gauge');
    this.lines.push(`${name}${formatLabels(labels)} 1`);
  }

  /** A gauge of the process: no labels. */
  process(name: string, help: string, value: number): void {
    this.head(name, help, 'gauge');
    this.lines.push(`${name} ${pythonFloat(value)}`);
  }

  text(): string {
    return `${this.lines.join('\n')}\n`;
  }

  private head(name: string, help: string, type: string): void {
    this.lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`);
  }

  private sample(name: string, labels: Labels, value: string): void {
    this.lines.push(`${name}${formatLabels({ ...this.base, ...labels })} ${value}`);
  }

  private createdGauge(name: string, help: string, labelSets: Labels[]): void {
    this.head(`${name}_created`, help, 'gauge');
    for (const labels of labelSets) this.sample(`${name}_created`, labels, this.created);
  }
}

function formatLabels(labels: Labels): string {
  const keys = Object.keys(labels).toSorted();
  return `{${keys.map((key) => `${key}="${labels[key]!.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`).join(',')}}`;
}

function pythonFloat(value: number): string {
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

/**
 * The body of `/metrics`: every `vllm:` series that vLLM 0.28/0.29 shows for one engine and one API server, names and
 * labels alike.
 */
export function metricsText(emulator: Emulator): string {
  const out = new Exposition({ engine: '0', model_name: emulator.model }, emulator.startedWallMs / 1000);
  out.process(
    'process_start_time_seconds',
    'Start time of the process since unix epoch in seconds.',
    emulator.startedWallMs / 1000,
  );
  addUnused(out);
  addGauges(out, emulator);
  addCounters(out, emulator);
  addHistograms(out, emulator);
  out.info('vllm:cache_config_info', 'CacheConfig of the engine', cacheConfig(emulator));
  return out.text();
}

/** Registered by vLLM always, moved only by features the emulator has not. */
function addUnused(out: Exposition): void {
  out.counter('vllm:estimated_flops_per_gpu', 'Estimated operations per GPU', [[{}, 0]]);
  out.counter('vllm:estimated_read_bytes_per_gpu', 'Estimated bytes read per GPU', [[{}, 0]]);
  out.counter('vllm:estimated_write_bytes_per_gpu', 'Estimated bytes written per GPU', [[{}, 0]]);
}

function addGauges(out: Exposition, { engine }: Emulator): void {
  const { running, waiting, kvUsageRatio } = engine.gauges;
  out.gauge('vllm:num_requests_running', 'Requests in the running list', [[{}, running]]);
  out.gauge('vllm:num_requests_waiting', 'Requests waiting', [[{}, waiting]]);
  out.gauge('vllm:num_requests_waiting_by_reason', 'Requests waiting, by reason', [
    [{ reason: 'capacity' }, waiting],
    [{ reason: 'deferred' }, 0],
  ]);
  out.gauge('vllm:engine_sleep_state', 'Sleep state of the engine', [
    [{ sleep_state: 'awake' }, 1],
    [{ sleep_state: 'weights_offloaded' }, 0],
    [{ sleep_state: 'discard_all' }, 0],
  ]);
  out.gauge('vllm:kv_cache_usage_perc', 'KV cache in use, 0 to 1', [[{}, kvUsageRatio]]);
}

function addCounters(out: Exposition, { engine, metrics }: Emulator): void {
  const { prefix, preemptionCount } = engine.scheduler;
  out.counter('vllm:prefix_cache_queries', 'Prefix cache queries, tokens', [[{}, prefix.queries]]);
  out.counter('vllm:prefix_cache_hits', 'Prefix cache hits, tokens', [[{}, prefix.hits]]);
  out.counter('vllm:external_prefix_cache_queries', 'External prefix cache queries, tokens', [[{}, 0]]);
  out.counter('vllm:external_prefix_cache_hits', 'External prefix cache hits, tokens', [[{}, 0]]);
  out.counter('vllm:mm_cache_queries', 'Multi-modal cache queries, items', [[{}, 0]]);
  out.counter('vllm:mm_cache_hits', 'Multi-modal cache hits, items', [[{}, 0]]);
  out.counter('vllm:num_preemptions', 'Preemptions', [[{}, preemptionCount]]);
  out.counter('vllm:prompt_tokens', 'Prompt tokens processed, cached ones included', [[{}, metrics.promptTokens]]);
  out.counter('vllm:prompt_tokens_by_source', 'Prompt tokens by source', [
    [{ source: 'local_compute' }, metrics.promptTokens - metrics.cachedPromptTokens],
    [{ source: 'local_cache_hit' }, metrics.cachedPromptTokens],
    [{ source: 'external_kv_transfer' }, 0],
  ]);
  out.counter('vllm:prompt_tokens_cached', 'Prompt tokens found in the cache', [[{}, metrics.cachedPromptTokens]]);
  out.counter('vllm:generation_tokens', 'Tokens generated', [[{}, metrics.generationTokens]]);
  out.counter('vllm:request_success', 'Requests ended, by reason', [
    [{ finished_reason: 'stop' }, metrics.success.stop],
    [{ finished_reason: 'length' }, metrics.success.length],
    [{ finished_reason: 'abort' }, 0],
    [{ finished_reason: 'error' }, 0],
    [{ finished_reason: 'repetition' }, 0],
  ]);
}

function addHistograms(out: Exposition, { metrics }: Emulator): void {
  out.histogram('vllm:request_prompt_tokens', 'Prompt tokens per request', metrics.requestPromptTokens);
  out.histogram('vllm:request_generation_tokens', 'Generated tokens per request', metrics.requestGenerationTokens);
  out.histogram('vllm:iteration_tokens_total', 'Tokens per engine step', metrics.iterationTokens);
  out.histogram(
    'vllm:request_max_num_generation_tokens',
    'Largest number of generated tokens of a request',
    metrics.requestMaxGenerationTokens,
  );
  out.histogram('vllm:request_params_n', 'Parameter n', metrics.requestParamsN);
  out.histogram('vllm:request_params_max_tokens', 'Parameter max_tokens', metrics.requestParamsMaxTokens);
  out.histogram('vllm:time_to_first_token_seconds', 'Time to first token', metrics.ttft);
  out.histogram('vllm:inter_token_latency_seconds', 'Time between output events', metrics.itl);
  out.histogram('vllm:request_time_per_output_token_seconds', 'Mean time per output token of a request', metrics.tpot);
  out.histogram('vllm:e2e_request_latency_seconds', 'Request latency end to end', metrics.e2e);
  out.histogram('vllm:request_queue_time_seconds', 'Time waiting', metrics.queueTime);
  out.histogram('vllm:request_inference_time_seconds', 'Time running', metrics.inferenceTime);
  out.histogram('vllm:request_prefill_time_seconds', 'Time in prefill', metrics.prefillTime);
  out.histogram('vllm:request_decode_time_seconds', 'Time in decode', metrics.decodeTime);
  out.histogram(
    'vllm:request_prefill_kv_computed_tokens',
    'Prompt tokens computed per request',
    metrics.requestPrefillKvComputed,
  );
}

function cacheConfig({ blockCount, engine, maxModelLen }: Emulator): Labels {
  const sizeTokens = blockCount * engine.blockSize;
  return {
    _block_size_resolved: 'True',
    block_size: String(engine.blockSize),
    cache_dtype: 'auto',
    enable_prefix_caching: 'True',
    engine: '0',
    gpu_memory_utilization: '0.92',
    is_attention_free: 'False',
    kv_cache_dtype_skip_layers: '[]',
    kv_cache_max_concurrency: String(sizeTokens / maxModelLen),
    kv_cache_memory_bytes: 'None',
    kv_cache_size_tokens: String(sizeTokens),
    kv_offloading_backend: 'native',
    kv_offloading_size: 'None',
    kv_sharing_fast_prefill: 'False',
    mamba_block_size: 'None',
    mamba_cache_dtype: 'auto',
    mamba_cache_mode: 'none',
    mamba_page_size_padded: 'None',
    mamba_ssm_cache_dtype: 'float32',
    num_cpu_blocks: 'None',
    num_gpu_blocks: String(blockCount),
    num_gpu_blocks_override: String(blockCount),
    prefix_cache_retention_interval: '0',
    prefix_caching_hash_algo: 'lodestar',
    prefix_match_unit: 'None',
    replayssm_buffer_len: '16',
    skip_page_size_padded: 'None',
    sliding_window: 'None',
    use_kda_recoverssm: 'False',
    use_replayssm: 'False',
    user_specified_block_size: 'True',
    user_specified_mamba_block_size: 'False',
  };
}
