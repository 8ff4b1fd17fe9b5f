import { type CandidateState, type RoutingRequest, uncachedTokens } from './candidate.ts';
import type { PriorEstimate } from './predictor/prior.ts';

/** Changes whenever the meaning or order of FEATURES changes: nets and samples of another schema are not used. */
export const FEATURE_SCHEMA = 1;

/**
 * Order of a feature row. Counts and times are log1p, so that a net sees ratios; ratios are as they are; absent
 * readings are 0 with their flag 0.
 */
export const FEATURES = [
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
] as const;

export const FEATURE_COUNT = FEATURES.length;

/**
 * Writes the feature row of one (request, candidate) pair into `out` at `offset` (FEATURE_COUNT floats). Live
 * decisions, simulation and training rows all come from here, so there is no skew between them. Every value is finite
 * whatever the report holds.
 */
export function writeFeatureRow(
  out: Float32Array,
  offset: number,
  request: RoutingRequest,
  candidate: CandidateState,
  prior: PriorEstimate,
): void {
  const { engine, gpu, host, law, ledger } = candidate.report;
  let at = offset;
  out[at++] = Math.log1p(request.promptTokens);
  out[at++] = Math.log1p(uncachedTokens(request, candidate));
  out[at++] = candidate.hitTokens / Math.max(1, request.promptTokens);
  out[at++] = Math.log1p(request.maxTokens);
  out[at++] = request.stream ? 1 : 0;
  out[at++] = Math.log1p(request.sequences);

  out[at++] = Math.log1p(candidate.inFlight);
  out[at++] = Math.log1p(candidate.waiting + candidate.prefilling);
  out[at++] = Math.log1p(candidate.pendingTokens);
  out[at++] = Math.log1p(candidate.decoding);
  out[at++] = Math.log1p(candidate.decodeContextTokens);
  out[at++] = Math.log1p(candidate.unseen);
  out[at++] = Math.min(4, candidate.workRatio);

  out[at++] = Math.min(8, prior.kvPressure);
  out[at++] = Math.log1p(Math.max(0, prior.overTokens));
  out[at++] = Math.log1p(ledger.meanOutputTokens);

  out[at++] = engine ? Math.log1p(engine.running) : 0;
  out[at++] = engine ? Math.log1p(engine.waiting) : 0;
  out[at++] = engine ? engine.kvUsageRatio : 0;
  out[at++] = engine ? Math.min(1, engine.ageMs / 10_000) : 1;
  out[at++] = engine ? Math.log1p(Math.max(0, engine.running + engine.waiting - ledger.inFlight)) : 0;

  out[at++] = gpu ? 1 : 0;
  out[at++] = gpu ? gpu.utilRatio : 0;
  out[at++] = gpu ? gpu.memUsedRatio : 0;
  out[at++] = gpu ? gpu.smClockRatio : 0;
  out[at++] = gpu ? gpu.powerRatio : 0;
  out[at++] = host ? host.cpuRatio : 0;

  out[at++] = Math.log1p(candidate.linkMs);
  out[at++] = Math.log1p(Math.min(60_000, candidate.ageMs));
  out[at++] = Math.log1p(law.samples);

  out[at++] = Math.log1p(prior.ttftMs);
  out[at++] = Math.log1p(prior.tpotMs);
}
