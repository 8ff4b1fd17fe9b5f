/**
 * The series read from vLLM's /metrics, newest name first: the first that a page has is used. Each line says which
 * versions know the name. Counters are listed as exposed, with `_total`.
 */
export const METRIC_NAMES = {
  running: ['vllm:num_requests_running'], // 0.6 and later
  waiting: ['vllm:num_requests_waiting'], // 0.6 and later
  kvUsageRatio: ['vllm:kv_cache_usage_perc' /* 0.9.2 */, 'vllm:gpu_cache_usage_perc' /* until 0.11 */],
  prefixQueries: [
    'vllm:prefix_cache_queries_total' /* 0.9.2 */,
    'vllm:gpu_prefix_cache_queries_total' /* 0.7 to 0.11 */,
  ],
  prefixHits: ['vllm:prefix_cache_hits_total' /* 0.9.2 */, 'vllm:gpu_prefix_cache_hits_total' /* 0.7 to 0.11 */],
  promptTokens: ['vllm:prompt_tokens_total'], // 0.6 and later
  generationTokens: ['vllm:generation_tokens_total'], // 0.6 and later
  preemptions: ['vllm:num_preemptions_total'], // 0.6 and later
  sleepState: ['vllm:engine_sleep_state'], // 0.11.1
  cacheConfig: ['vllm:cache_config_info'], // 0.6 and later; absent from the Rust front end
  processStart: ['process_start_time_seconds'], // absent with several API servers
} as const satisfies Record<string, readonly string[]>;

export type MetricKey = keyof typeof METRIC_NAMES;

/** Every name of the table, for the parser. */
export const wantedMetricNames: ReadonlySet<string> = new Set(Object.values(METRIC_NAMES).flat());
