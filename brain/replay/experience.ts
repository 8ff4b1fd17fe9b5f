import { FEATURES } from '../../shared/features.ts';
import { lawSamplesOf } from '../../shared/predictor/law-age.ts';
import { RESIDUAL_CLAMP } from '../../shared/predictor/net.ts';
import { type Sample, sampleRow } from '../../shared/sample.ts';

/** What the learner keeps of a sample. */
export interface Experience {
  /** raw features, FEATURE_COUNT */
  row: Float32Array;
  /** log(observed / prior), within ±RESIDUAL_CLAMP; NaN where it was not observed */
  ttft: number;
  tpot: number;
  /** Unix ms at which the brain received it */
  arrivedMs: number;
  /** coarse region of the state space, for the diversity pool */
  stratum: string;
  instance: string;
  /** steps that the law behind the prior had seen */
  lawSamples: number;
}

/** No feature comes near it: they are ratios and logarithms. */
const FEATURE_MAX = 1e4;
const IN_FLIGHT = FEATURES.indexOf('inFlight');
const KV_HIT_RATIO = FEATURES.indexOf('kvHitRatio');
const PROMPT_TOKENS = FEATURES.indexOf('promptTokens');

/** Reads a sample: `censored` if its attempt failed or was cut off, `invalid` if its row cannot be used. */
export function experienceOf(sample: Sample, arrivedMs: number): Experience | 'censored' | 'invalid' {
  const row = sampleRow(sample);
  if (!row.every((value) => Math.abs(value) <= FEATURE_MAX)) return 'invalid';
  if (sample.outcome.status !== 'ok') return 'censored';
  const ttft = logRatio(sample.outcome.ttftMs, sample.priorTtftMs);
  const tpot = sample.outcome.outputTokens > 1 ? logRatio(sample.outcome.tpotMs, sample.priorTpotMs) : Number.NaN;
  return {
    row,
    ttft,
    tpot,
    arrivedMs,
    stratum: stratumOf(sample, row),
    instance: sample.instance,
    lawSamples: lawSamplesOf(row),
  };
}

/** False for an answer that was not streamed: its end-to-end time can be judged, but neither part of it learned. */
export function isLabelled({ ttft, tpot }: Experience): boolean {
  return !Number.isNaN(ttft) || !Number.isNaN(tpot);
}

function logRatio(observedMs: number | null, priorMs: number): number {
  if (observedMs === null || observedMs <= 0) return Number.NaN;
  return Math.max(-RESIDUAL_CLAMP, Math.min(RESIDUAL_CLAMP, Math.log(observedMs / priorMs)));
}

/**
 * Kind, regime, and doublings of load and prompt length with quarters of the hit ratio. The features are log1p already.
 */
function stratumOf(sample: Sample, row: Float32Array): string {
  const load = Math.round((row[IN_FLIGHT] as number) / Math.LN2);
  const prompt = Math.round((row[PROMPT_TOKENS] as number) / Math.LN2);
  const hit = Math.round((row[KV_HIT_RATIO] as number) * 4);
  return `${sample.kind} ${sample.regime} ${load} ${prompt} ${hit}`;
}
