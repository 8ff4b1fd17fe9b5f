import type { Dispatcher } from 'undici';
import type { Env } from '../../../shared/env.ts';
import { PeriodicCollector } from './collector.ts';
import { getOk } from './http-get.ts';
import { readGauges, type VllmGauges } from './vllm-gauges.ts';

/**
 * Gauges with the key of the engine's incarnation: another key means that the engine has restarted and its caches are
 * gone.
 */
export interface VllmMetrics extends VllmGauges {
  engineStartKey: string;
}

export interface VllmMetricsOptions {
  /** Base URL of the server. */
  url: string;
  periodMs: number;
  dispatcher: Dispatcher;
  env: Pick<Env, 'clock' | 'log'>;
}

const MAX_PAGE_BYTES = 8 * 1024 * 1024;
const MIN_TIMEOUT_MS = 1000;
/** Starts of a process that are no further apart are one, in seconds. */
const SAME_START_S = 1;
const COUNTERS = ['prefixQueries', 'promptTokens', 'generationTokens', 'preemptions'] as const;

/**
 * Reads vLLM's /metrics each period. vLLM answers on the event loop that also serves requests, so once a second is
 * often enough: the door's own ledger is fresher for everything it can know.
 */
export class VllmMetricsCollector extends PeriodicCollector<VllmMetrics> {
  constructor(options: VllmMetricsOptions) {
    const get = {
      dispatcher: options.dispatcher,
      clock: options.env.clock,
      timeoutMs: Math.max(MIN_TIMEOUT_MS, options.periodMs),
      maxBytes: MAX_PAGE_BYTES,
    };
    const startKeyOf = incarnations();
    super(`vllm-metrics ${options.url}`, options.periodMs, options.env, async (note) => {
      const gauges = readGauges(await getOk(`${options.url}/metrics`, get), note);
      return { ...gauges, engineStartKey: startKeyOf(gauges) };
    });
  }
}

/**
 * Names incarnations by the start of the process. Where no page has told it, by counters that went backwards; a figure
 * that is not known says nothing.
 */
function incarnations(): (gauges: VllmGauges) => string {
  const counted = new Map<(typeof COUNTERS)[number], number>();
  let processStartS: number | undefined;
  let resets = 0;
  return (gauges) => {
    let wentBack = false;
    for (const name of COUNTERS) {
      const value = gauges[name];
      if (value === undefined) continue;
      wentBack ||= value < (counted.get(name) ?? 0);
      counted.set(name, value);
    }
    const started = gauges.processStartS;
    // The same start may be told with other rounding.
    if (started !== undefined && Math.abs(started - (processStartS ?? -Infinity)) > SAME_START_S)
      processStartS = started;
    if (wentBack && processStartS === undefined) resets++;
    return `start-${processStartS ?? 'unknown'}-reset-${resets}`;
  };
}
