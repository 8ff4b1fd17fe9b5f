import { FEATURES } from '../../../shared/features.ts';

type Feature = (typeof FEATURES)[number];

/** Features that stand or fall together: where they come from, one source each. */
export const GROUPS = {
  request: ['promptTokens', 'maxTokens', 'stream', 'sequences'],
  'cache and KV': ['ownTokens', 'kvHitRatio', 'kvPressure', 'overTokens'],
  ledger: [
    'inFlight',
    'pendingRequests',
    'pendingTokens',
    'decoding',
    'decodeContextTokens',
    'workRatio',
    'meanOutputTokens',
  ],
  'engine gauges': ['engineRunning', 'engineWaiting', 'engineKvUsageRatio', 'engineAge', 'outsideRequests'],
  'GPU use, memory': ['gpuPresent', 'gpuUtilRatio', 'gpuMemUsedRatio'],
  'clocks, power': ['gpuSmClockRatio', 'gpuPowerRatio'],
  host: ['hostCpuRatio'],
  'ages, link': ['unseen', 'linkMs', 'reportAgeMs', 'lawSamples'],
  prior: ['priorTtftMs', 'priorTpotMs'],
} satisfies Record<string, Feature[]>;

export type GroupName = keyof typeof GROUPS;

/** Every feature is in exactly one group. */
export function columnsOf(group: GroupName): number[] {
  return GROUPS[group].map((name) => FEATURES.indexOf(name));
}
