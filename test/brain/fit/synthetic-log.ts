import { seededRng } from '../../../shared/env.ts';

/** A request as the imagined cluster served it. Times in ms. */
interface Served {
  id: number;
  instance: number;
  startMs: number;
  endMs: number;
  ttftMs: number;
  promptTokens: number;
  outputTokens: number;
}

export interface SyntheticLog {
  served: Served[];
  instances: number;
}

/**
 * Every instance prefills its requests in turn, 0.2 ms a token, then each decodes on its own: TTFT is the wait for
 * those before and the prompt's own time.
 */
export function serve(count: number, instances = 3, seed = 7): SyntheticLog {
  const rng = seededRng(seed);
  const freeAt = new Float64Array(instances);
  let nowMs = 0;
  const served = Array.from({ length: count }, (_, id): Served => {
    nowMs += -Math.log(1 - rng()) * 220;
    const instance = Math.floor(rng() * instances);
    const promptTokens = 500 + Math.floor(rng() * 3500);
    const outputTokens = 40 + Math.floor(rng() * 20);
    const begin = Math.max(nowMs, freeAt[instance] as number);
    freeAt[instance] = begin + 20 + 0.2 * promptTokens;
    const ttftMs = Math.round((freeAt[instance] as number) - nowMs + 30 * (0.8 + 0.4 * rng()));
    return {
      id,
      instance,
      startMs: nowMs,
      ttftMs,
      endMs: nowMs + ttftMs + outputTokens * 40,
      promptTokens,
      outputTokens,
    };
  });
  return { served, instances };
}

export const TIMED_HEADER =
  'request_id,start_us,end_us,pod,ttft_ms,tpot_ms,decode_ms,e2e_ms,input_tokens,output_tokens,hit_pct,inflight,running,waiting,kv_usage,explored,hit_all,inflight_all,running_all,waiting_all,kv_all';

/** The log in the format with times. */
export function timedCsv({ served }: SyntheticLog): string {
  const rows = served.map((one) => {
    const e2eMs = one.endMs - one.startMs;
    const all = '"{""10.0.0.1"": 1, ""10.0.0.2"": 0}"';
    return [
      one.id,
      Math.round(one.startMs * 1000),
      Math.round(one.endMs * 1000),
      `10.0.0.${one.instance + 1}`,
      one.ttftMs,
      40,
      e2eMs - one.ttftMs,
      e2eMs,
      one.promptTokens,
      one.outputTokens,
      0,
      0,
      0,
      0,
      0.1,
      0,
      all,
      all,
      all,
      all,
      all,
    ].join(',');
  });
  return [TIMED_HEADER, ...rows, ''].join('\n');
}

/** The log in the format with counts: no times, rows in order of completion. */
export function countedCsv({ served, instances }: SyntheticLog): string {
  const names = Array.from({ length: instances }, (_, i) => `pod_${i}`);
  const perInstance = [
    'kv_hit_ratio',
    'inflight_requests',
    'gpu_kv_cache',
    'cpu_kv_cache',
    'running_requests',
    'waiting_requests',
    'decode_tokens',
  ];
  const header = [
    'request_id',
    'selected_pod',
    'input_tokens',
    'output_tokens',
    'ttft',
    'avg_tpot',
    'e2e_latency',
    ...names.flatMap((name) => perInstance.map((column) => `${name}-${column}`)),
  ];
  const rows = served
    .toSorted((a, b) => a.endMs - b.endMs)
    .map((one) => {
      const inFlight = (instance: number): number =>
        served.filter(
          (other) => other.instance === instance && other.startMs < one.startMs && other.endMs > one.startMs,
        ).length;
      const gauges = names.flatMap((_, at) => [0, inFlight(at), 0.1, 0, inFlight(at), 0, 5]);
      return [
        one.id,
        `pod_${one.instance}`,
        one.promptTokens,
        one.outputTokens,
        one.ttftMs,
        40,
        Math.round(one.endMs - one.startMs),
        ...gauges,
      ].join(',');
    });
  return [header.join(','), ...rows, ''].join('\n');
}
