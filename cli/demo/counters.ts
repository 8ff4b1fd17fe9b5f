import type { PrometheusPage } from '../../agent/door/collectors/prometheus-text.ts';
import type { FleetClient } from './fleet-client.ts';

const AGENT_SERIES = new Set([
  'lodestar_agent_attempts_total',
  'lodestar_agent_decisions_total',
  'lodestar_agent_retries_total',
  'lodestar_agent_ttft_seconds_sum',
  'lodestar_agent_ttft_seconds_count',
]);
const ENGINE_SERIES = new Set(['vllm:prefix_cache_queries_total', 'vllm:prefix_cache_hits_total']);

/** What the fleet has counted since its start, or in a phase. */
export interface FleetCounters {
  instances: Record<string, InstanceCounters>;
  /** Decisions by `policy` and by `policy, reason`. */
  policies: Record<string, number>;
  reasons: Record<string, number>;
  retries: number;
}

export interface InstanceCounters {
  /** Attempts that have ended. */
  attempts: number;
  /** First tokens, and the sum of their times: dispatch at the entry to first byte. */
  firstTokens: number;
  ttftSumMs: number;
  /** Prompt tokens that the engine looked up in its prefix cache, and found. */
  lookedUpTokens: number;
  hitTokens: number;
}

/** Reads the counters of all agents and engines. */
export async function readCounters(client: FleetClient): Promise<FleetCounters> {
  const [agents, engines] = await Promise.all([
    client.metrics('agentUrl', AGENT_SERIES),
    client.metrics('engineUrl', ENGINE_SERIES),
  ]);
  const counters: FleetCounters = { instances: {}, policies: {}, reasons: {}, retries: 0 };
  for (const { instance } of client.nodes)
    counters.instances[instance] = { attempts: 0, firstTokens: 0, ttftSumMs: 0, lookedUpTokens: 0, hitTokens: 0 };
  for (const page of agents) addAgent(counters, page);
  for (const [at, page] of engines.entries()) {
    const instance = counters.instances[client.nodes[at]?.instance ?? ''];
    if (!instance) continue;
    instance.lookedUpTokens = total(page, 'vllm:prefix_cache_queries_total');
    instance.hitTokens = total(page, 'vllm:prefix_cache_hits_total');
  }
  return counters;
}

/** What was counted between two readings. */
export function difference(later: FleetCounters, earlier: FleetCounters): FleetCounters {
  const instances = Object.entries(later.instances).map(([name, now]): [string, InstanceCounters] => {
    const before = earlier.instances[name];
    const fields = Object.entries(now).map(([field, value]: [string, number]) => [
      field,
      value - (before?.[field as keyof InstanceCounters] ?? 0),
    ]);
    return [name, Object.fromEntries(fields) as InstanceCounters];
  });
  return {
    instances: Object.fromEntries(instances),
    policies: subtract(later.policies, earlier.policies),
    reasons: subtract(later.reasons, earlier.reasons),
    retries: later.retries - earlier.retries,
  };
}

function addAgent(counters: FleetCounters, page: PrometheusPage): void {
  const addTo = (field: keyof InstanceCounters, series: string, factor = 1): void => {
    for (const { labels, value } of page.samples.get(series) ?? []) {
      const instance = counters.instances[labels.instance ?? ''];
      if (instance) instance[field] += value * factor;
    }
  };
  addTo('attempts', 'lodestar_agent_attempts_total');
  addTo('firstTokens', 'lodestar_agent_ttft_seconds_count');
  addTo('ttftSumMs', 'lodestar_agent_ttft_seconds_sum', 1000);
  counters.retries += total(page, 'lodestar_agent_retries_total');
  for (const { labels, value } of page.samples.get('lodestar_agent_decisions_total') ?? []) {
    const { policy = '?', reason = '?' } = labels;
    counters.policies[policy] = (counters.policies[policy] ?? 0) + value;
    counters.reasons[`${policy}, ${reason}`] = (counters.reasons[`${policy}, ${reason}`] ?? 0) + value;
  }
}

function total(page: PrometheusPage, series: string): number {
  return (page.samples.get(series) ?? []).reduce((sum, { value }) => sum + value, 0);
}

function subtract(later: Record<string, number>, earlier: Record<string, number>): Record<string, number> {
  const entries = Object.entries(later).map(([name, value]): [string, number] => [name, value - (earlier[name] ?? 0)]);
  return Object.fromEntries(entries.filter(([, value]) => value !== 0));
}
