import { expect, test } from 'vitest';
import { FEATURE_SCHEMA, FEATURES } from '../../shared/features.ts';

test('the order of features is frozen: nets and samples on disk rely on it, so a change needs a new FEATURE_SCHEMA', () => {
  expect(FEATURE_SCHEMA).toBe(1);
  expect(FEATURES).toEqual([
    'promptTokens',
    'ownTokens',
    'kvHitRatio',
    'maxTokens',
    'stream',
    'sequences',
    'inFlight',
    'pendingRequests',
    'pendingTokens',
    'decoding',
    'decodeContextTokens',
    'unseen',
    'workRatio',
    'kvPressure',
    'overTokens',
    'meanOutputTokens',
    'engineRunning',
    'engineWaiting',
    'engineKvUsageRatio',
    'engineAge',
    'outsideRequests',
    'gpuPresent',
    'gpuUtilRatio',
    'gpuMemUsedRatio',
    'gpuSmClockRatio',
    'gpuPowerRatio',
    'hostCpuRatio',
    'linkMs',
    'reportAgeMs',
    'lawSamples',
    'priorTtftMs',
    'priorTpotMs',
  ]);
});
